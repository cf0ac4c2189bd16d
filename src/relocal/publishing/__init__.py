"""Publishing: a scene as a dataset that others find, check, cite and train on."""

from relocal.publishing.config import LICENCES, PublishConfig
from relocal.publishing.publish import publish

__all__ = ["LICENCES", "PublishConfig", "publish"]
