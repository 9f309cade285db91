"""Ctrl-C and SIGTERM: finish the epoch, leave a checkpoint, go."""

import os
import signal
import threading
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """A signal asked the run to stop, and it has left a checkpoint."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class StopRequest:
    """Notes a signal for the training loop to see; a second one stops at once."""

    def __init__(self) -> None:
        self._previous: dict[int, object] = {}
        self.signal = 0

    @property
    def requested(self) -> bool:
        return self.signal != 0

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is not threading.main_thread():
            return self  # Python delivers signals to the main thread alone
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
        # Not through the console: the signal may have come in the middle of its writing.
        name = signal.Signals(number).name
        os.write(2, f"\n{name}: stopping after this epoch (once more: at once)\n".encode())
