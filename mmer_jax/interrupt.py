"""Ctrl-C and SIGTERM: finish the epoch, leave a checkpoint, go."""

import signal
from types import FrameType

from rich.console import Console

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """A signal asked the run to stop, and it has left a checkpoint."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class StopRequest:
    """Notes a signal for the training loop to see; a second one stops at once."""

    def __init__(self, console: Console):
        self._console = console
        self._previous: dict[int, object] = {}
        self.signal = 0

    @property
    def requested(self) -> bool:
        return self.signal != 0

    def __enter__(self) -> "StopRequest":
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.signal = number
        self._console.print(
            f"{signal.Signals(number).name}: stopping after this epoch with a checkpoint "
            "(once more to stop at once)"
        )
