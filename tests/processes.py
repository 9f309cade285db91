"""Real runs of `python -m mmer_jax.main`, in one process or several."""

import contextlib
import os
import socket
import subprocess
import sys
import threading

from places import CACHE, ROOT

SMALL = (
    "--config.synthetic.n_utterances=200",
    "--config.model.embedding=8",
    "--config.checkpoint.every_seconds=0",
)
FUSION = (
    "--config=configs/utt_fusion.py",
    "--config.data.source=synthetic",
    "--config.data.label=emotion",
    "--config.data.splits=session",
    *SMALL,
    "--config.stages.utt_fusion.constant_epochs=3",
    "--config.stages.utt_fusion.decay_epochs=3",
)
IFMMIN = (
    "--config=configs/demo.py",
    *SMALL,
    "--config.model.classifier=(8,)",
    "--config.model.cascade=(8,4)",
    "--config.model.blocks=2",
    *(
        f"--config.stages.{stage}.{name}"
        for stage in ("utt_shared", "ifmmin")
        # Steps so small that Adam does not make differences of rounding into others.
        for name in ("constant_epochs=1", "decay_epochs=1", "learning_rate=2e-5")
    ),
)


def environment(**extra):
    """One CPU device; programs compiled fast and kept."""
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "1",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        **extra,
    }


class Running:
    """A process whose output is collected line by line, with both streams in one."""

    def __init__(self, command, **extra):
        self.lines: list[str] = []
        self._said = threading.Condition()
        self.process = subprocess.Popen(
            list(map(str, command)),
            cwd=ROOT,
            env=environment(**extra),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        for line in self.process.stdout:
            with self._said:
                self.lines.append(line)
                self._said.notify_all()
        self.process.stdout.close()
        with self._said:
            self._said.notify_all()

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def until(self, text: str, timeout: float = 240) -> None:
        """Wait for a line that has `text`."""
        with self._said:
            assert self._said.wait_for(
                lambda: text in self.output or not self._thread.is_alive(), timeout
            ), f"not said in {timeout} s: {text}\n{self.output}"
        assert text in self.output, self.output

    def end(self, timeout: float = 300) -> int:
        code = self.process.wait(timeout)
        self._thread.join(10)
        return code


def main_command(*flags, module="mmer_jax.main"):
    return [sys.executable, "-m", module, f"--compilation_cache={CACHE}", *flags]


@contextlib.contextmanager
def started(*commands, **extra):
    """The commands, running side by side; whatever is left of them at the end is killed."""
    running = [Running(command, **extra) for command in commands]
    try:
        yield running
    finally:
        for one in running:
            if one.process.poll() is None:
                one.process.kill()
            one.end()


def in_processes(count: int, *flags, module="mmer_jax.main") -> list[list[str]]:
    """The commands of `count` processes that carry out one run."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    where = (f"--coordinator=localhost:{port}", f"--num_processes={count}")
    own = [(*where, f"--process_id={i}") for i in range(count)]
    return [main_command(*flags, *mine, module=module) for mine in own]


def run(*flags, processes: int = 1, module="mmer_jax.main", **extra) -> str:
    """Run to the end; the first process's output."""
    if processes > 1:
        commands = in_processes(processes, *flags, module=module)
    else:
        commands = [main_command(*flags, module=module)]
    with started(*commands, **extra) as running:
        for one in running:
            assert one.end() == 0, "\n".join(other.output for other in running)
        return running[0].output
