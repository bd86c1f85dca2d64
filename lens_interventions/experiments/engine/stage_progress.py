"""The progress of a stage: a bar if there is a terminal, otherwise a line a minute."""

import threading
import time
from types import TracebackType

from tqdm.auto import tqdm

from ..._progress import bars_are_seen, say

_REFRESH = 1.0  # seconds; a clock that stands looks like a program that hangs
_BETWEEN_LINES = 60.0  # seconds; a log that is read later should not consist of them


class StageProgress:
    """A context that shows the units of a stage while they are measured.

    The bar moves within a unit that this process measures, and its clock always moves. The time
    left follows from the average time of the units measured since the stage began. Without a
    terminal there is a line at each end, and one a minute in between, also within a long unit.
    """

    def __init__(self, label: str | None) -> None:
        """Prepare it; without a label nothing is shown."""
        self._label = label
        self._bar: tqdm | None = None
        self._done = 0
        self._seen = 0.0
        self._units = 0
        self._begun = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._refresh, daemon=True)

    def __enter__(self) -> "StageProgress":
        """Show it, before the units are known."""
        if self._label is not None:
            if bars_are_seen():
                self._bar = tqdm(desc=self._label, unit="unit", smoothing=0)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self._ended.set()
        if self._label is not None:
            self._thread.join()  # so that its last line is no later than the end's
        if self._bar is not None:
            self._bar.close()
        elif self._label is not None and kind is None:
            say(f"{self._label}: done in {self._seconds:.0f} s")

    def begin(self, units: int, kept: int) -> None:
        """Announce `units` units, of which `kept` come from an earlier run."""
        self._done, self._seen, self._units = kept, kept, units
        if self._bar is not None:
            self._bar.reset(total=units)  # with its clock, so that the time left is of units alone
            self._bar.initial = self._bar.n = kept
            self._bar.refresh()
        elif self._label is not None:
            say(f"{self._label}: {units} unit{'' if units == 1 else 's'}, {kept} of them kept")

    def inside(self, share: float) -> None:
        """Report the share of a unit that is done."""
        # A unit of several parts reports the share of each.
        self._seen = max(self._seen, round(self._done + share, 2))
        if self._bar is not None:
            self._bar.update(self._seen - self._bar.n)

    def finished(self) -> None:
        """Report that another unit is measured and written."""
        self._done += 1
        self.inside(0)

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._begun

    def _refresh(self) -> None:
        while not self._ended.wait(_BETWEEN_LINES if self._bar is None else _REFRESH):
            if self._bar is not None:
                self._bar.refresh()
            else:
                so_far = f"{self._seen:g} of {self._units} units, " if self._units else ""
                say(f"{self._label}: {so_far}{self._seconds:.0f} s so far")
