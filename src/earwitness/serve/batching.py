"""One worker thread runs the model; waiting windows of all requests share its batches."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from earwitness.caption import Caption, Decoding, Reranks, best_captions
from earwitness.captioning.captioner import Captioner
from earwitness.serve.metrics import Metrics
from earwitness.serve.settings import Settings


@dataclass(eq=False)
class _Waiting:
    waveform: np.ndarray
    decoding: Decoding
    reranker: Reranks | None
    found: "asyncio.Future[list[Caption]]"

    def joins(self, first: "_Waiting") -> bool:
        """Whether a batch with `first` pays off: the same search, at most twice its length."""
        if self is first:
            return True
        short, long = sorted((len(self.waveform), len(first.waveform)))
        same = self.decoding == first.decoding and self.reranker == first.reranker
        return same and self.decoding.batches and long <= 2 * short


class Batcher:
    """Micro-batches: while the model works, windows gather; the oldest leads the next batch."""

    def __init__(self, captioner: Captioner, settings: Settings, metrics: Metrics) -> None:
        self._captioner, self._settings, self._metrics = captioner, settings, metrics
        self._waiting: list[_Waiting] = []
        self._arrived = asyncio.Event()
        # A number format of torch applies only in the thread that enters it.
        self._computing = captioner.precision(settings.precision)
        self._thread = ThreadPoolExecutor(
            1, thread_name_prefix="earwitness-model", initializer=self._computing.__enter__
        )
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def captions(
        self,
        waveforms: Sequence[np.ndarray],
        decoding: Decoding,
        reranker: Reranks | None = None,
    ) -> list[list[Caption]]:
        """The n-best captions of each waveform; a canceled caller takes its windows with it."""
        new = asyncio.get_running_loop().create_future
        rows = [_Waiting(waveform, decoding, reranker, new()) for waveform in waveforms]
        self._waiting += rows
        self._arrived.set()
        return await asyncio.gather(*(row.found for row in rows))

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What `function` returns, called between two batches on the model's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    async def close(self) -> None:
        """Ends the worker after the current batch."""
        self._task.cancel()
        await asyncio.wait([self._task])
        await self.run(self._computing.__exit__, None, None, None)
        self._thread.shutdown()

    async def _work(self) -> None:
        while True:
            await self._arrived.wait()
            if len(self._waiting) < self._settings.batch_size:
                await asyncio.sleep(self._settings.batch_wait_ms / 1000)
            batch = self._next()
            self._metrics.waiting.set(len(self._waiting))
            if batch:
                await self._caption(batch)
            if not self._waiting:
                self._arrived.clear()

    def _next(self) -> list[_Waiting]:
        waiting = [row for row in self._waiting if not row.found.cancelled()]
        batch = [row for row in waiting if row.joins(waiting[0])][: self._settings.batch_size]
        self._waiting = [row for row in waiting if row not in batch]
        return batch

    async def _caption(self, batch: list[_Waiting]) -> None:
        started = perf_counter()
        waveforms = [row.waveform for row in batch]
        first = batch[0]
        call = asyncio.ensure_future(
            self.run(best_captions, self._captioner, waveforms, first.decoding, first.reranker)
        )
        await asyncio.wait([call])
        error = call.exception()
        for number, row in enumerate(batch):
            if row.found.cancelled():
                continue
            if error is not None:
                row.found.set_exception(error)
            else:
                row.found.set_result(call.result()[number])
        self._metrics.batch.observe(len(batch))
        self._metrics.model.observe(perf_counter() - started)
