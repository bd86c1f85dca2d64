"""The progress of a stage: a bar if there is a terminal, otherwise a line now and then."""

import sys
import threading
import time
from types import TracebackType

from tqdm.auto import tqdm

_REFRESH = 1.0  # seconds; a clock that stands looks like a program that hangs
_BETWEEN_LINES = 60.0  # seconds; a log that is read later should not consist of them


class StageProgress:
    """A context that shows the units of a stage while they are measured.

    The bar moves within a unit that this process measures, and its clock always moves. The time
    left follows from the average time of the units measured since the stage began. Without a
    terminal there is a line at each end, and one at the end of a unit, but at most one a minute.
    """

    def __init__(self, label: str | None) -> None:
        """Prepare it; without a label nothing is shown."""
        self._label = label
        self._bar: tqdm | None = None
        self._done = 0
        self._units = 0
        self._begun = self._said = time.monotonic()
        self._ended = threading.Event()

    def __enter__(self) -> "StageProgress":
        """Show it, before the units are known."""
        if self._label is not None and _bars_are_seen():
            self._bar = tqdm(desc=self._label, unit="unit", smoothing=0)
            threading.Thread(target=self._refresh, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self._ended.set()
        if self._bar is not None:
            self._bar.close()
        elif self._label is not None and kind is None:
            _say(f"{self._label}: done in {self._seconds:.0f} s")

    def begin(self, units: int, kept: int) -> None:
        """Announce `units` units, of which `kept` come from an earlier run."""
        self._done, self._units = kept, units
        if self._bar is not None:
            self._bar.reset(total=units)  # with its clock, so that the time left is of units alone
            self._bar.initial = self._bar.n = kept
            self._bar.refresh()
        elif self._label is not None:
            _say(f"{self._label}: {units} units, of which {kept} are kept")

    def inside(self, share: float) -> None:
        """Report the share of a unit that is done."""
        if self._bar is not None:
            # A unit of several parts reports the share of each.
            self._bar.update(max(round(self._done + share - self._bar.n, 2), 0))

    def finished(self) -> None:
        """Report that another unit is measured and written."""
        self._done += 1
        self.inside(0)
        if self._bar is None and self._label is not None and self._done < self._units:
            now = time.monotonic()
            if now - self._said >= _BETWEEN_LINES:
                self._said = now
                measured = f"{self._done} of {self._units} units"
                _say(f"{self._label}: {measured} after {self._seconds:.0f} s")

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._begun

    def _refresh(self) -> None:
        while not self._ended.wait(_REFRESH):
            if self._bar is not None:
                self._bar.refresh()


def _bars_are_seen() -> bool:
    # A notebook's cells run in a kernel; ipykernel may be imported for other reasons.
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return sys.stderr.isatty() or hasattr(shell, "kernel")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
