"""Ctrl-C and SIGTERM: finish the epoch, leave a checkpoint, go; or go at once, if that takes long.

Python runs signal handlers between two of its own instructions, which a program of many minutes on
the device keeps away. So a thread listens as well, and ends the process when its time is up: the
last checkpoint is complete, and nothing that was scored is lost.
"""

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from mmer_jax import distributed

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SHOW_CURSOR = "\x1b[?25h"  # which a progress bar hides


class Interrupted(Exception):
    """A signal asked the run to stop, and it has left a checkpoint."""

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class StopRequest:
    """Notes a signal for the training loop to see.

    A second signal, or one that the loop has not seen for `grace` seconds, ends the process at
    once; not in the middle of what `undisturbed` surrounds.
    """

    def __init__(self, grace: float = 15.0) -> None:
        self.signal = 0
        self._grace = grace
        self._busy = threading.Lock()
        self._previous: dict[int, object] = {}
        self._pipe: tuple[int, int] | None = None

    @property
    def requested(self) -> bool:
        return self.signal != 0

    @contextlib.contextmanager
    def undisturbed(self) -> Iterator[None]:
        """A checkpoint that has been begun is finished."""
        with self._busy:
            yield

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is not threading.main_thread():
            return self  # Python delivers signals to the main thread alone
        self._pipe = os.pipe()
        os.set_blocking(self._pipe[1], False)
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, self._note)
        self._previous_fd = signal.set_wakeup_fd(self._pipe[1])
        self._thread = threading.Thread(target=self._listen, args=self._pipe[:1], daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._pipe is None:
            return
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        signal.set_wakeup_fd(self._previous_fd)
        os.close(self._pipe[1])  # which ends the thread
        self._thread.join()
        os.close(self._pipe[0])
        self._pipe = None
        if self.signal and exception[0] is None:  # it came when no loop looked any more
            signal.raise_signal(self.signal)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = self.signal or number

    def _listen(self, pipe: int) -> None:
        deadline = None
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select([pipe], [], [], left)
            if not ready:
                self._leave(f"this epoch takes longer than {self._grace:g} s")
            told = os.read(pipe, 1)
            if not told:
                return
            if told[0] not in SIGNALS:
                continue
            if deadline is not None:
                self._leave("asked once more")
            self.signal = told[0]
            deadline = time.monotonic() + self._grace
            name = signal.Signals(self.signal).name
            # Not through the console: its progress bar may be in the middle of writing.
            os.write(2, f"\n{name}: stopping after this epoch (once more: at once)\n".encode())

    def _leave(self, why: str) -> None:
        name, code = signal.Signals(self.signal).name, 128 + self.signal
        with self._busy:
            cursor = SHOW_CURSOR if os.isatty(2) else ""
            os.write(
                2,
                f"{cursor}{name}: stopped at once ({why}); run the same command again to go on "
                "from the last checkpoint\n".encode(),
            )
            distributed.tell_end(code, name)
            distributed.end_at_once(code)
