"""One thread for one model: requests queue, and a newer one replaces an older one of its slot."""

import asyncio
import threading
import traceback
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..model.user_errors import USER_ERRORS

Event = tuple[str, dict[str, Any]]

Emit = Callable[[str, dict[str, Any]], None]
"""Sends an event by its name and data. Raises `CancelledWork` when nobody wants it any more."""

Work = Callable[[Emit], None]


def reports_to(emit: Emit) -> Callable[[float], None]:
    """A function that sends the share of the work that is done."""

    def report(share: float) -> None:
        emit("progress", {"share": share})

    return report


MOST_WAITING = 16


class CancelledWork(Exception):  # noqa: N818 - no error
    """The request is no longer wanted."""


class _Job:
    def __init__(self, work: Work, send: Callable[[Event | None], object]) -> None:
        self._work, self._send = work, send
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Make it end at its next event."""
        self._cancelled.set()

    def run(self) -> None:
        """Send the events of the work, then None. Errors become an event."""
        try:
            self._require_wanted()
            self._work(self._emit)
        except CancelledWork:
            self._send(("cancelled", {}))
        except USER_ERRORS as error:
            self._send(("error", {"message": " ".join(str(error).split()) or type(error).__name__}))
        except Exception as error:
            traceback.print_exc()
            message = f"{type(error).__name__}: {error}. The terminal of the explorer tells more."
            self._send(("error", {"message": message}))
        finally:
            self._send(None)

    def _emit(self, name: str, data: dict[str, Any]) -> None:
        self._require_wanted()
        self._send((name, data))

    def _require_wanted(self) -> None:
        if self._cancelled.is_set():
            raise CancelledWork


class Worker:
    """Runs work on a thread of its own and hands its events to the event loop."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="explorer")
        self._jobs: set[_Job] = set()
        self._newest: dict[str, _Job] = {}

    @property
    def full(self) -> bool:
        """Whether the queue is full."""
        return len(self._jobs) >= MOST_WAITING

    def events(self, slot: str, work: Work) -> AsyncIterator[Event]:
        """The events of `work`, which waits for its turn from now on; for the event loop's thread.

        Work that was asked for earlier in the same `slot` is cancelled, and so is this one when
        nobody listens any more.
        """
        if slot in self._newest:
            self._newest[slot].cancel()
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Event | None] = asyncio.Queue()

        def send(event: Event | None) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, event)

        job = _Job(work, send)
        self._jobs.add(job)
        self._newest[slot] = job
        future = self._thread.submit(job.run)
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._jobs.discard, job))

        async def received() -> AsyncIterator[Event]:
            try:
                while (event := await queue.get()) is not None:
                    yield event
            finally:
                job.cancel()
                future.cancel()  # one that waits gives up its place
                if self._newest.get(slot) is job:
                    del self._newest[slot]

        return received()

    def cancel(self) -> None:
        """Make running and waiting work end at its next event."""
        for job in list(self._jobs):
            job.cancel()

    def close(self) -> None:
        """Cancel all work, and wait for the thread."""
        self.cancel()
        self._thread.shutdown(wait=True)
