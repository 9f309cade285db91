"""Workers on one workdir: the tables of one process, whoever dies and whenever."""

import json
import signal
import threading
from collections import Counter

import pytest
from helpers import shrunk, train
from processes import IFMMIN, main_command, run, started

from configs import utt_fusion
from mmer_jax import checkpoint, workers
from mmer_jax.claims import Claims
from mmer_jax.config import base, stage
from mmer_jax.errors import UserError
from mmer_jax.interrupt import Interrupted
from mmer_jax.records import Reporter, write_atomically
from mmer_jax.sweep import single_point
from mmer_jax.trials import Trial, make_groups
from mmer_jax.workdir import locked
from mmer_jax.workers import RESULTS, Share

BEAT = 0.1


# ---- what a worker takes ----


def groups(count=3, size=2):
    config = base()
    config.stages.one = stage()
    point = single_point(config)[0]
    return make_groups([Trial(point, fold, 0) for fold in range(count * size)], size)


def claims(workdir, index, said=None):
    return Claims(workdir, index, BEAT, (said if said is not None else []).append)


def finish(workdir, keys):
    """As if the trials had been trained."""
    folder = workdir / "checkpoints" / "final"
    folder.mkdir(parents=True, exist_ok=True)
    entries = [{"trial": k, "validation_score": 0.5, "best_epoch": 0} for k in keys]
    write_atomically(folder / f"{abs(hash(tuple(keys)))}.json", json.dumps(entries))


def never():
    return False


def test_workers_take_every_group_once_and_one_makes_the_results(tmp_path):
    taken, said, met = Counter(), [], threading.Barrier(3)

    def work(index):
        with claims(tmp_path, index, said) as mine:
            share = Share(mine, groups(7), tmp_path, 0)
            met.wait()
            while (keys := share.take(never)) not in ([], [RESULTS]):
                taken[tuple(keys)] += 1
                finish(tmp_path, keys)
            taken[RESULTS] += keys == [RESULTS]
            met.wait(10)  # nobody leaves, so that the results are held as long as that

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = {tuple(t.key for t in g.trials): 1 for g in groups(7)} | {RESULTS: 1}
    assert taken == expected
    assert len(said) == 2 and all("makes the results" in text for text in said)


def test_workers_begin_far_from_each_other(tmp_path):
    first = []
    for index in range(4):
        with claims(tmp_path / str(index), index) as mine:
            share = Share(mine, groups(20), tmp_path / str(index), 0)
            first.append(share.number(share.take(never)))
    ordered = sorted(first)
    gaps = [(b - a) % 20 for a, b in zip(ordered, ordered[1:] + ordered[:1], strict=True)]
    assert min(gaps) >= 2, first


def test_what_was_finished_after_the_look_is_not_trained_again(tmp_path, monkeypatch):
    keys = [[t.key for t in g.trials] for g in groups(2)]
    with claims(tmp_path, 0) as mine:
        share = Share(mine, groups(2), tmp_path, 0)
        stale = iter([keys, keys[1:]])  # the first look is before the other worker finished
        monkeypatch.setattr(share, "_left", lambda: next(stale))
        finish(tmp_path, keys[0])
        assert share.take(never) == keys[1]
        assert set(mine.holders(keys[0] + keys[1])) == set(keys[1])


def test_of_a_group_that_others_hold_in_part_the_rest_is_taken(tmp_path):
    """Workers with another max_parallel cut the trials differently."""
    keys = [t.key for t in groups(1, 5)[0].trials]
    with claims(tmp_path, 1) as other, claims(tmp_path, 0) as mine:
        assert other.take(keys[3:])
        share = Share(mine, groups(1, 5), tmp_path, 0)
        assert share.take(never) == keys[:3]
        assert [t.key for t in share.group(keys[:3]).trials] == keys[:3]


def test_a_group_is_not_split_while_its_holder_still_claims_it(tmp_path):
    """The other worker is between its first and its second claim; then it has both."""
    keys = [t.key for t in groups(1)[0].trials]
    with claims(tmp_path, 1) as other, claims(tmp_path, 0) as mine:
        assert other.take(keys[:1])
        share, looks = Share(mine, groups(1), tmp_path, 0), []

        def after_the_first_look():
            if looks:
                other.take(keys[1:])
            looks.append(1)
            return False

        assert share.take(after_the_first_look) == []


def test_of_a_group_that_has_begun_no_part_is_taken(tmp_path, monkeypatch):
    """Its checkpoint is of all its trials. Waiting leaves no claims behind."""
    keys = [t.key for t in groups(1, 5)[0].trials]
    monkeypatch.setattr(workers, "begun_groups", lambda workdir: [keys])
    with claims(tmp_path, 1) as other, claims(tmp_path, 0) as mine:
        assert other.take(keys[3:])
        share, looks = Share(mine, groups(1, 5), tmp_path, 0), Counter()

        def after_ten_looks():
            looks["all"] += 1
            return looks["all"] > 10

        before = sorted(path.name for path in (tmp_path / "claims").iterdir())
        assert share.take(after_ten_looks) == []
        assert sorted(path.name for path in (tmp_path / "claims").iterdir()) == before


def test_who_finds_nothing_says_who_has_the_rest(tmp_path):
    said = []
    with claims(tmp_path, 3) as other, claims(tmp_path, 1, said) as mine:
        assert len(Share(other, groups(1), tmp_path, 0).take(never)) == 2
        assert Share(mine, groups(1), tmp_path, 0).take(never) == []
    (text,) = said
    assert f"2 of 2 trials are with {other.me}, and who ends last makes the results" in text
    assert "--config.trials.max_parallel=N makes smaller groups" in text


def test_nobody_leaves_trials_to_a_worker_that_has_just_died(tmp_path):
    """Its heartbeat is young; only the next one, which does not come, could tell."""
    said = []
    dead = _another_machines(tmp_path)
    mine_groups = groups(1)
    keys = Share(dead, mine_groups, tmp_path, 0).take(never)
    dead._ended.set()
    dead._thread.join()
    with claims(tmp_path, 1, said) as mine:
        assert Share(mine, mine_groups, tmp_path, 0).take(never) == keys
    assert said == [f"{dead.me} has died; its trials are free for others"]


def _another_machines(workdir):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmer_jax.claims._machine", lambda: "another")
        return claims(workdir, 3).__enter__()


def test_the_results_of_who_died_over_them_are_made_by_the_next(tmp_path):
    keys = [t.key for g in groups(1) for t in g.trials]
    finish(tmp_path, keys)
    with claims(tmp_path, 0) as first:
        assert Share(first, groups(1), tmp_path, 0).take(never) == [RESULTS]
    with claims(tmp_path, 1) as second:
        assert Share(second, groups(1), tmp_path, 0).take(never) == [RESULTS]


def test_waiting_ends_when_asked_to_stop(tmp_path):
    asked = iter([False, False, True, True])
    with claims(tmp_path, 0) as other, claims(tmp_path, 1) as mine:
        Share(other, groups(1), tmp_path, 0).take(never)
        assert Share(mine, groups(1), tmp_path, 0).take(lambda: next(asked)) == []


# ---- whole runs ----


def small(**more):
    """5 trials in 3 groups, 2 epochs each."""
    return shrunk(
        utt_fusion.get_config(),
        data__source="synthetic",
        data__label="emotion",
        data__splits="session",
        eval__protocols=("full", "pattern"),
        trials__max_parallel=2,
        trials__heartbeat_seconds=BEAT,
        **more,
    )


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def epochs_of_trials(workdir):
    """How often each epoch of each trial is told of."""
    return Counter((x["trial"], x["epochs_done"]) for x in lines(workdir))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run without workers."""
    workdir = tmp_path_factory.mktemp("alone")
    train(small(), workdir)
    return workdir


def assert_same_tables(workdir, expected, names=("results.csv",)):
    for name in names:
        assert (workdir / name).read_bytes() == (expected / name).read_bytes(), name
    assert epochs_of_trials(workdir) == epochs_of_trials(expected)
    assert not (workdir / "metrics").exists()


def test_a_worker_goes_on_where_another_was_stopped(alone, tmp_path, monkeypatch):
    config = small()
    seen = []
    original = Reporter.epoch

    def epoch(self, *args):
        original(self, *args)
        seen.append(args)
        if len(seen) == 3:  # in the second group
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(Reporter, "epoch", epoch)
        with pytest.raises(Interrupted, match="SIGTERM"):
            train(config, tmp_path, worker=0)
    assert not list((tmp_path / "claims" / "workers").iterdir())
    assert len(checkpoint.finished_trials(tmp_path)) == 2
    results, text = train(small(), tmp_path, worker=1)
    assert "resuming after 1 epochs" in text and "takes group" in text and results
    assert_same_tables(tmp_path, alone)


def test_a_run_without_workers_goes_on_with_what_they_have_left(alone, tmp_path, monkeypatch):
    config = small()
    with monkeypatch.context() as patched:
        patched.setattr(Reporter, "epoch", lambda self, *args: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(Interrupted):
            train(config, tmp_path, worker=0)
    _, text = train(config, tmp_path)
    assert "resuming after 1 epochs" in text
    assert_same_tables(tmp_path, alone)


def test_who_was_taken_for_dead_writes_nothing_more(tmp_path, monkeypatch):
    def bury(self, *args):
        for heartbeat in (tmp_path / "claims" / "workers").iterdir():
            heartbeat.unlink()

    monkeypatch.setattr(Reporter, "epoch", bury)  # after the first epoch's lines
    with pytest.raises(UserError, match="others have taken over its trials"):
        train(small(), tmp_path, worker=0)
    (part,) = (tmp_path / "metrics").iterdir()
    assert {json.loads(x)["epochs_done"] for x in part.read_text().splitlines()} == {1}
    assert not checkpoint.finished_trials(tmp_path)


def test_a_plain_run_and_workers_refuse_each_other(tmp_path):
    config = small()
    with locked(tmp_path, shared=True), locked(tmp_path, shared=True):
        with pytest.raises(UserError, match=r"is in use by workers \(--worker\)"):
            train(config, tmp_path)
    with locked(tmp_path), pytest.raises(UserError, match="is in use by process"):
        train(config, tmp_path, worker=0)


def test_a_worker_with_another_configuration_is_refused_at_once(tmp_path):
    """Also before anything is trained."""
    config = small()
    other = small(model__embedding=16)

    def refused(*args):
        with pytest.raises(UserError, match="model.embedding there 8, here 16"):
            train(other, tmp_path, worker=1)
        raise InterruptedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "GroupTraining", refused)
        patch.setattr("mmer_jax.train.train_share", refused)
        with pytest.raises(InterruptedError):
            train(config, tmp_path, worker=0)


# ---- real processes ----


SWEEP = (
    *IFMMIN,
    "--sweep=configs/sweeps/demo.py",
    "--config.synthetic.n_utterances=120",
    "--config.trials.max_parallel=5",
    "--config.trials.heartbeat_seconds=0.5",
)


def worker_commands(workdir, indices, flags=SWEEP):
    return [main_command(*flags, f"--workdir={workdir}", f"--worker={i}") for i in indices]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """The sweep of one process: 30 trials in 6 groups."""
    workdir = tmp_path_factory.mktemp("swept")
    run(*SWEEP, f"--workdir={workdir}")
    return workdir


@pytest.mark.long
def test_workers_give_the_tables_of_one_process_though_one_is_killed(swept, tmp_path):
    with started(*worker_commands(tmp_path, range(3))) as running:
        running[1].until("utt_shared epoch 1/2")
        running[1].process.kill()
        with started(main_command(*SWEEP, f"--workdir={tmp_path}")) as (plain,):
            assert plain.end() == 75 and "is in use by workers" in plain.output
        assert [one.end() for one in running] == [0, -signal.SIGKILL, 0]
        said = [one.output for one in running]
    assert sum("chosen by validation" in output for output in said) == 1, said
    assert "has died; its trials are free" in said[0] + said[2]
    assert_same_tables(tmp_path, swept, ("results.csv", "sweep.csv"))


@pytest.mark.long
def test_when_all_workers_are_killed_the_next_start_goes_on(swept, tmp_path):
    with started(*worker_commands(tmp_path, range(2))) as running:
        for one in running:
            one.until("ifmmin epoch 1/2")
            one.process.kill()
    assert not (tmp_path / "results.csv").exists()
    with started(*worker_commands(tmp_path, range(2))) as running:
        assert [one.end() for one in running] == [0, 0]
        assert "resuming after" in running[0].output + running[1].output
    assert_same_tables(tmp_path, swept, ("results.csv", "sweep.csv"))
    with started(*worker_commands(tmp_path, [0])) as (late,):
        assert late.end() == 0 and "missing, pooled" in late.output
        assert "takes group" not in late.output


@pytest.mark.long
def test_sigterm_frees_the_trials_of_a_worker_at_once(swept, tmp_path):
    slow_heart = [f for f in SWEEP if "heartbeat" not in f]  # 10 s: silence could not tell so soon
    with started(*worker_commands(tmp_path, range(2), slow_heart)) as running:
        running[0].until("takes group")
        running[0].process.send_signal(signal.SIGTERM)
        assert running[0].end() == 128 + signal.SIGTERM
        assert "run the same command again to go on" in running[0].output
        assert running[1].end() == 0 and "chosen by validation" in running[1].output
    assert_same_tables(tmp_path, swept, ("results.csv", "sweep.csv"))


@pytest.mark.long
def test_workers_go_through_the_runs_of_an_ablation(tmp_path):
    sweep = tmp_path / "sweep.py"
    sweep.write_text(
        "def sweep():\n    yield {}\n    yield {'stages.ifmmin.learning_rate': 1e-3}\n"
    )
    flags = [f for f in SWEEP if "sweep" not in f] + [f"--sweep={sweep}", "--each"]
    run(*flags, f"--workdir={tmp_path}/one")
    with started(*worker_commands(tmp_path / "two", range(2), flags)) as running:
        assert [one.end() for one in running] == [0, 0]
        assert any("comparison   " in one.output for one in running)
    for name in ("as_configured", "learning_rate=0.001"):
        assert_same_tables(tmp_path / "two" / name, tmp_path / "one" / name)
    assert (tmp_path / "two" / "report" / "report.md").exists()


@pytest.mark.long
@pytest.mark.parametrize("index", ["first", "-1", "1.5"])
def test_a_worker_has_a_number(tmp_path, index):
    with started(main_command(*IFMMIN, f"--workdir={tmp_path}", f"--worker={index}")) as (one,):
        assert one.end() == 2
        assert f"--worker={index}; expected a number from 0" in one.output
