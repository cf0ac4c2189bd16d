"""Micro-batching: what many ask at once is answered together, in a thread beside the server's."""

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from time import perf_counter

import torch

from relocal.camera import Camera
from relocal.errors import InputError
from relocal.localizers import Localizer, Regressor
from relocal.notices import Notice
from relocal.types import Estimate

_DECODERS = 4  # a large photo takes hundreds of megabytes while it is decoded

Answer = Estimate | InputError | None
"""An estimate, why the photo could not be asked about, or None: cannot tell."""


class QueueFullError(Exception):
    """More is asked than is answered; come back later."""


@dataclass
class _Question:
    photo: bytes
    camera: Camera | None
    answer: "asyncio.Future[Answer]"
    since: float = field(default_factory=perf_counter)


class Batcher:
    """Asks a localizer about the photos that wait, as many at once as there are.

    While it is asked others come in, and are its next batch: nobody waits for company.

    Args:
        localizer: What answers.
        most: Most photos at once.
        waiting: Most photos that may wait.
    """

    def __init__(self, localizer: Localizer, most: int, waiting: int) -> None:
        self.localizer, self.most = localizer, most
        self.batches, self.photos = 0, 0
        self._queue: asyncio.Queue[_Question] = asyncio.Queue(waiting)
        self._thread = ThreadPoolExecutor(1, "localizer")
        self._decoders = ThreadPoolExecutor(min(_DECODERS, os.cpu_count() or 1), "photos")
        self._worker: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to answer, in the running loop."""
        self._worker = asyncio.create_task(self._work())

    @property
    def ready(self) -> bool:
        """Whether it answers."""
        return self._worker is not None and not self._worker.done()

    @property
    def waiting(self) -> int:
        """How many photos wait."""
        return self._queue.qsize()

    async def stop(self) -> None:
        """Answers what waits, and ends."""
        await self._queue.join()
        if self._worker is not None:
            self._worker.cancel()
        self._thread.shutdown()
        self._decoders.shutdown()

    async def ask(self, photo: bytes, camera: Camera | None) -> Estimate | None:
        """Where a photo was taken; None: it cannot tell.

        Args:
            photo: The bytes of a photo.
            camera: Its camera; None: that of EXIF or the scene.

        Raises:
            QueueFullError: If too many wait.
            InputError: If the photo cannot be read or does not fit the camera.
        """
        question = _Question(photo, camera, asyncio.get_running_loop().create_future())
        try:
            self._queue.put_nowait(question)
        except asyncio.QueueFull:
            raise QueueFullError from None
        answer = await question.answer
        if isinstance(answer, InputError):
            raise answer
        # From when it was asked, as a user counts.
        spent = 1000 * (perf_counter() - question.since)
        return None if answer is None else replace(answer, time_ms=spent)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._queue.get()]
            while len(batch) < self.most and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            # Whose request was given up is not asked about.
            live = [question for question in batch if not question.answer.done()]
            try:
                answers = await loop.run_in_executor(self._thread, self._answers, live)
            except Exception as error:  # the server goes on: the error belongs to these requests
                for question in live:
                    if not question.answer.done():
                        question.answer.set_exception(error)
            else:
                self.batches, self.photos = self.batches + bool(live), self.photos + len(live)
                for question, answer in zip(live, answers, strict=True):
                    if not question.answer.done():
                        question.answer.set_result(answer)
            for _ in batch:
                self._queue.task_done()

    def _answers(self, batch: Sequence[_Question]) -> list[Answer]:
        if not isinstance(self.localizer, Regressor):
            return list(self._decoders.map(self._one, batch))
        looks = list(self._decoders.map(self._look, batch))
        good = [i for i, look in enumerate(looks) if not isinstance(look, InputError)]
        answers: list[Answer] = [look if isinstance(look, InputError) else None for look in looks]
        if good:
            seen = [look for look in looks if not isinstance(look, InputError)]
            estimates = self.localizer.answer(torch.stack([view for view, _ in seen]))
            for i, estimate, (_, warnings) in zip(good, estimates, seen, strict=True):
                answers[i] = replace(estimate, warnings=warnings)
        return answers

    def _one(self, question: _Question) -> Answer:
        try:
            return self.localizer.localize(question.photo, question.camera)
        except InputError as error:
            return error

    def _look(self, question: _Question) -> tuple[torch.Tensor, tuple[Notice, ...]] | InputError:
        assert isinstance(self.localizer, Regressor)
        try:
            return self.localizer.look(question.photo, question.camera)
        except InputError as error:
            return error
