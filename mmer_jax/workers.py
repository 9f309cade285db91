"""A worker's share of a run: the groups of trials that it trains beside other workers.

Nobody coordinates. Before each group a worker looks at what is trained and what others have claimed
(claims.py), and takes the next group that is free. Who finds everything trained makes the results.
"""

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from functools import partial
from pathlib import Path

from rich.console import Console

from mmer_jax import distributed
from mmer_jax.checkpoint import begun_groups, finished_trials
from mmer_jax.claims import Claims, Worker
from mmer_jax.experiment import Experiment
from mmer_jax.group import GroupTraining, n_epochs
from mmer_jax.interrupt import Interrupted, StopRequest
from mmer_jax.records import MetricsLog, Reporter
from mmer_jax.trials import Group, pending_groups

RESULTS = "results"  # is claimed by who scores and reports
GOLDEN = 0.6180339887498949  # its multiples, modulo 1, lie evenly however many there are


def train_share(
    experiment: Experiment,
    groups: Sequence[Group],
    workdir: Path,
    console: Console,
    claims: Claims,
) -> bool:
    """Train what is left to this worker, of whose processes the first one speaks to others.

    Returns:
      Whether everything is trained and the results are this worker's to make. If not, others have
      the rest, and one of them will make the results.

    Raises:
      UserError: others have taken this worker for dead.
      Interrupted: a signal came; a checkpoint is written.
    """
    config = experiment.config
    share = Share(claims, groups, workdir, config.trials.max_parallel)
    log = MetricsLog(workdir, tensorboard=config.log.tensorboard, by_group=True)
    still_ours = partial(distributed.on_first, claims.check)
    with StopRequest(config.checkpoint.grace_seconds) as stop:
        take = partial(distributed.on_first, lambda: share.take(lambda: stop.requested))
        while (names := take()) not in ([], [RESULTS]):
            group, number = share.group(names), share.number(names) + 1
            claims.say(f"{claims.me} takes group {number} of {len(groups)}, {len(names)} trials")
            training = GroupTraining(experiment, group, workdir, log, still_ours=still_ours)
            stages = experiment.stages(group.trials[0].point)
            with Reporter(console, Counter({s.name: n_epochs(s) for s in stages})) as reporter:
                reporter.of_group(number, len(groups))
                training.run(reporter, stop)
        (number,) = distributed.agree([stop.signal])
        if number:
            raise Interrupted(number)
    if names == [RESULTS] and distributed.is_first():
        log.gather({found.group for found in finished_trials(workdir).values()})
    return names == [RESULTS]


class Share:
    """What a worker does of a run.

    Args:
      claims: of this worker.
      groups: all groups of the run.
      workdir: of the run.
      max_parallel: what the user asks for (`pending_groups`).
    """

    def __init__(self, claims: Claims, groups: Sequence[Group], workdir: Path, max_parallel: int):
        self._claims, self._groups, self._workdir = claims, groups, workdir
        self._max_parallel = max_parallel
        self._trials = {trial.key: trial for group in groups for trial in group.trials}
        self._numbers = {t.key: i for i, group in enumerate(groups) for t in group.trials}
        # Workers begin far from each other, and go on with neighbours, which share programs.
        self._start = int(claims.me.index * GOLDEN % 1 * len(groups))
        self._is_idle = True
        self._held_before: Set[str] = set()  # when it last looked for parts of groups

    def take(self, stopped: Callable[[], bool]) -> list[str]:
        """What this worker does next, claimed for it.

        Args:
          stopped: whether to give up waiting.

        Returns:
          Keys of trials to train side by side; [RESULTS], to make the results; or nothing, where
          others do what is left.
        """
        while not stopped():
            left = self._left()
            for keys in itertools.chain(left, self._parts(left)):
                if self._claims.take(keys):
                    if self._finished().isdisjoint(keys):
                        self._start, self._is_idle = self.number(keys), False
                        return keys
                    self._claims.release(keys)  # its holder finished it after we had looked
            if not left and self._claims.take([RESULTS]):
                return [RESULTS]
            wanted = [key for keys in left for key in keys] or [RESULTS]
            others = self._others(wanted, stopped)
            if others:
                self._claims.say(self._farewell(len(wanted) if left else 0, others))
                break
            time.sleep(self._claims.me.interval / 10)
        return []

    def group(self, keys: Sequence[str]) -> Group:
        """The group of some trials."""
        width = self._groups[self.number(keys)].width
        return Group(tuple(self._trials[key] for key in keys), max(width, len(keys)))

    def number(self, keys: Sequence[str]) -> int:
        """Where the trials stand among all groups of the run, from 0."""
        return self._numbers[keys[0]]

    def _left(self) -> list[list[str]]:
        """The groups that are not trained yet, claimed or not, in this worker's order."""
        left = pending_groups(
            self._groups,
            self._finished(),
            begun_groups(self._workdir),
            self._max_parallel,
            keep_cuts=True,
        )
        keys = [[trial.key for trial in group.trials] for group in left]
        return sorted(keys, key=lambda k: (self.number(k) - self._start) % len(self._groups))

    def _parts(self, left: list[list[str]]) -> Iterator[list[str]]:
        """Of groups that others hold in part, as they cut differently, what is free.

        Not of a group that has begun: its checkpoint is of all its trials. And not at the first
        look, as its holder may be about to claim the rest.
        """
        held = self._claims.holders([key for keys in left for key in keys])
        begun = {key for keys in begun_groups(self._workdir) for key in keys}
        before, self._held_before = self._held_before, held.keys()
        for keys in left:
            theirs = held.keys() & set(keys)
            if 0 < len(theirs) < len(keys) and theirs <= before and begun.isdisjoint(keys):
                yield [key for key in keys if key not in held]

    def _others(self, names: Sequence[str], stopped: Callable[[], bool]) -> list[Worker]:
        """The living workers who hold all of `names`; nobody where one of them is free.

        Waits for a heartbeat of each: who has just died would leave its trials to nobody.
        """
        first: dict[Worker, float] = {}
        while not stopped():
            held = self._claims.holders(names)
            if len(held) < len(names):
                break
            beats = dict(held.values())
            first = {worker: first.get(worker, beat) for worker, beat in beats.items()}
            if all(beats[worker] > first[worker] for worker in beats):
                return sorted(beats, key=lambda worker: worker.index)
            time.sleep(self._claims.me.interval / 10)
        return []

    def _farewell(self, left: int, others: Sequence[Worker]) -> str:
        """Why this worker ends, where `others` have the `left` trials, or the results to make."""
        names = ", ".join(map(str, others))
        if not left:
            return f"every trial is trained; {names} makes the results"
        hint = "; --config.trials.max_parallel=N makes smaller groups" if self._is_idle else ""
        return (
            f"nothing is left for {self._claims.me}: {left} of {len(self._trials)} trials are with "
            f"{names}, and who ends last makes the results{hint}"
        )

    def _finished(self) -> set[str]:
        """The trials that are trained, whoever did it."""
        self._claims.see_anew(self._workdir / "checkpoints" / "final")
        return set(finished_trials(self._workdir))
