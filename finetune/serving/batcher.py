"""Requests that arrive together are labelled in one call of the model.

The model works in one thread of its own. While it works, other requests wait. The next call takes texts from all that
wait, one of each request in turn, so a small request does not wait for all texts of a large one.
"""

from __future__ import annotations  # the types of the fields are read as texts

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

Answer = Callable[[list[Any]], Sequence[Any]]


@dataclass(eq=False)
class Asked:
    """The texts of one request, at least one."""

    samples: Sequence[Any]
    done: asyncio.Future[list[Any]]  # the answers, in the order of the samples
    answers: list[Any]
    taken: int = 0  # how many samples calls of the model have taken
    answered: int = 0


@dataclass(eq=False)
class Batcher:
    """The requests that wait, and the thread of the model. All methods belong to one event loop."""

    answer: Answer  # such as a `finetune.prediction.Predictor`
    texts: int  # the largest number of texts in a call
    wait: float  # seconds: how long the first text waits for others while the model is idle
    room: int  # the largest number of texts that wait
    waiting: int = 0  # texts that no call has taken yet
    rate: float = 0.0  # texts a second, of the last calls; 0 before the first
    _queue: deque[Asked] = field(default_factory=deque)
    _some: asyncio.Event = field(default_factory=asyncio.Event)
    _enough: asyncio.Event = field(default_factory=asyncio.Event)
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "model"))

    def add(self, samples: Sequence[Any]) -> Asked:
        """Lets a request wait for the model; `await asked.done` gives its answers, or the model's error.

        Raises:
            asyncio.QueueFull: if there is no room for so many texts.
        """
        if self.waiting + len(samples) > self.room:
            raise asyncio.QueueFull
        asked = Asked(samples, asyncio.get_running_loop().create_future(), [None] * len(samples))
        if not samples:
            asked.done.set_result([])
            return asked
        self._queue.append(asked)
        self._count(len(samples))
        return asked

    def drop(self, asked: Asked) -> None:
        """Forgets a request that nobody waits for any more. Texts in the model's hands are still labelled."""
        if asked in self._queue:
            self._queue.remove(asked)
            self._count(asked.taken - len(asked.samples))
        asked.done.cancel()

    def seconds_left(self) -> float:
        """How long the texts that wait now will take."""
        return self.waiting / self.rate if self.rate else 1.0

    async def work(self) -> None:
        """Labels what waits, until this task is cancelled."""
        try:
            while True:
                await self._some.wait()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._enough.wait(), self.wait)
                if batch := self._take():
                    await self._label(batch)
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _count(self, change: int) -> None:
        self.waiting += change
        for event, least in ((self._some, 1), (self._enough, self.texts)):
            event.set() if self.waiting >= least else event.clear()

    def _take(self) -> list[tuple[Asked, int]]:
        """The texts of the next call: each with its request, and its number there."""
        batch: list[tuple[Asked, int]] = []
        while self._queue and len(batch) < self.texts:
            asked = self._queue.popleft()
            batch.append((asked, asked.taken))
            asked.taken += 1
            if asked.taken < len(asked.samples):
                self._queue.append(asked)
        self._count(-len(batch))
        return batch

    async def _label(self, batch: Sequence[tuple[Asked, int]]) -> None:
        began = time.perf_counter()
        found = await self._call([asked.samples[at] for asked, at in batch])
        if not isinstance(found, Exception):
            now = len(batch) / max(time.perf_counter() - began, 1e-9)
            self.rate = 0.8 * self.rate + 0.2 * now if self.rate else now
        requests = dict.fromkeys(asked for asked, _ in batch)
        for asked in requests:
            if asked.done.done():  # nobody waits for it any more
                continue
            own = [i for i, (other, _) in enumerate(batch) if other is asked]
            answers: Any = found
            if not isinstance(found, Exception):
                answers = [found[i] for i in own]
            elif len(requests) > 1:  # the mistake of one request is not the others'
                answers = await self._call([asked.samples[batch[i][1]] for i in own])
            self._give(asked, [batch[i][1] for i in own], answers)

    async def _call(self, samples: list[Any]) -> Any:
        """The answers, or the error of the model."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self.answer, samples)
        except Exception as error:
            return error

    def _give(self, asked: Asked, places: Sequence[int], answers: Any) -> None:
        if asked.done.done():  # nobody waits any more
            return
        if isinstance(answers, Exception):
            asked.done.set_exception(answers)
            self.drop(asked)
            return
        for at, answer in zip(places, answers, strict=True):
            asked.answers[at] = answer
        asked.answered += len(places)
        if asked.answered == len(asked.samples):
            asked.done.set_result(asked.answers)
