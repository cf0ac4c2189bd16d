"""The synthetic room against ray casting, against itself from another view, and its promises."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from relocal.datasets.room.config import Pinhole, RoomConfig
from relocal.datasets.room.layout import FREE_BOX_M, ROOM_SIZE_M, Quad
from relocal.datasets.room.recording import film
from relocal.datasets.room.renderer import Room, build_room, render, see
from relocal.datasets.room.sensor import expose, motion_px
from relocal.datasets.room.walk import walk
from relocal.datasets.synthetic import read_synthetic, render_room
from relocal.errors import InputError
from relocal.metrics import *  # noqa

DEFAULT = RoomConfig()
SMALL = RoomConfig(train_frames=6, test_frames=3, width_px=80, height_px=60, points=500)
