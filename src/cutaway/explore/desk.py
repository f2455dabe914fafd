"""Every page gets its turn at the model, and work that nobody waits for is called off.

One thread works, first come, first served. A page has at most one piece of work of a kind: a newer
one takes the place of the older, so that a page waits for no more than one of each other page's,
however fast somebody types. When a page goes away, what it waits for is dropped, or stopped between
two layers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from cutaway.errors import CutawayError
from cutaway.explore.runs import Stop, StoppedError

Found = TypeVar("Found")


class SupersededError(CutawayError):
    """A newer request of the same page took this one's place."""


class Desk:
    """The queue for one model. Used from one event loop."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "cutaway-model")
        self._latest: dict[str, tuple[Stop, Future[Any]]] = {}

    async def do(
        self, page: str, work: Callable[[Stop], Found], gone: Callable[[], Awaitable[None]]
    ) -> Found:
        """The work's result, once it had its turn.

        `gone` returns when the page no longer waits. Raises `SupersededError`, `StoppedError` when
        it is gone, or what the work raises.
        """
        stop = Stop()
        if page in self._latest:
            self._call_off(*self._latest[page])
        future = self._thread.submit(work, stop)
        self._latest[page] = (stop, future)
        done = asyncio.wrap_future(future)
        leaving = asyncio.ensure_future(gone())
        try:
            await asyncio.wait({done, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not done.done():
                raise StoppedError("The page that asked no longer waits for an answer.")
            return done.result()
        except (StoppedError, asyncio.CancelledError):
            if leaving.done() or not (done.done() and stop.is_set()):
                raise  # the page is gone, or the server ends
            raise SupersededError("A newer request of this page took its place.") from None
        finally:
            leaving.cancel()
            self._call_off(stop, future)
            if self._latest.get(page) == (stop, future):
                del self._latest[page]

    def close(self) -> None:
        """Stop everything, and wait until the thread has ended."""
        for stop, future in self._latest.values():
            self._call_off(stop, future)
        self._thread.shutdown(wait=True, cancel_futures=True)

    @staticmethod
    def _call_off(stop: Stop, future: Future[Any]) -> None:
        """Drop work that waits, stop work that runs; nothing happens to what is done."""
        stop.set()
        future.cancel()
