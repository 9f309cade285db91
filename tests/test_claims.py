"""Claims of workers: one winner whatever happens, takeover after death, nobody comes back."""

import json
import multiprocessing
import os
import signal
import threading
import time

import pytest

from mmer_jax import claims as claims_lib
from mmer_jax.claims import Claims
from mmer_jax.errors import UserError

BEAT = 0.1


def worker(workdir, index=0, beat=BEAT, say=lambda text: None):
    return Claims(workdir, index, beat, say)


def as_another(monkeypatch, **identity):
    """The next worker that is made has another identity than this process."""
    real = claims_lib._this_process

    def made(index, interval):
        return claims_lib.dataclasses.replace(real(index, interval), **identity)

    monkeypatch.setattr(claims_lib, "_this_process", made)


def in_process(target, *args):
    """A process of its own, not forked: this one has threads."""
    process = multiprocessing.get_context("spawn").Process(target=target, args=args)
    process.start()
    return process


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.01)


# ---- one winner ----


def race(workdir, index, names, out):
    """Take every name, in the same order as the other processes, from the same moment on."""
    (workdir / f"ready{index}").touch()
    with worker(workdir, index, beat=10.0) as mine:
        while not (workdir / "go").exists():
            time.sleep(0.0005)
        won = [name for name in names if mine.take([name])]
        out.put(won)
        while not (workdir / "over").exists():
            time.sleep(0.01)


def test_of_racing_processes_one_wins_each_claim(tmp_path):
    names = [f"trial {i}" for i in range(150)]
    out = multiprocessing.get_context("spawn").Queue()
    processes = [in_process(race, tmp_path, i, names, out) for i in range(3)]
    wait_for(lambda: len(list(tmp_path.glob("ready*"))) == 3)
    (tmp_path / "go").touch()
    won = [out.get(timeout=60) for _ in processes]
    (tmp_path / "over").touch()
    for process in processes:
        process.join(timeout=20)
    assert sorted(name for mine in won for name in mine) == sorted(names)
    assert [p.exitcode for p in processes] == [0, 0, 0]


def test_of_racing_heirs_one_wins_what_a_dead_worker_held(tmp_path):
    """Many threads, each with claims of its own, take over the same names at once."""
    names = [f"trial {i}" for i in range(40)]
    with worker(tmp_path) as dead:
        assert dead.take(names)
    heirs = [worker(tmp_path, i) for i in range(4)]
    won = {i: [] for i in range(4)}
    start = threading.Barrier(4)

    def inherit(i):
        with heirs[i] as mine:
            start.wait()
            won[i] += [name for name in names if mine.take([name])]
            start.wait()

    threads = [threading.Thread(target=inherit, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(name for mine in won.values() for name in mine) == sorted(names)


def test_all_or_none_is_taken(tmp_path):
    with worker(tmp_path, 0) as first, worker(tmp_path, 1) as second:
        assert first.take(["b"])
        assert not second.take(["a", "b", "c"])
        assert second.holders(["a", "c"]) == {}
        assert first.take(["a", "c"])
        assert {h.index for h, _ in second.holders("abc").values()} == {0}


def test_what_is_given_back_is_free_for_everybody(tmp_path):
    with worker(tmp_path, 0) as first, worker(tmp_path, 1) as second:
        for taker, other in ((first, second), (second, first), (second, first)):
            assert taker.take(["x"]) and not other.take(["x"])
            taker.release(["x"])
        assert first.holders(["x"]) == {}


def test_an_answer_that_was_lost_is_no_defeat(tmp_path, monkeypatch):
    """NFS repeats a request whose answer did not arrive, and is then told that the file exists."""
    real = os.link

    def twice(*args):
        real(*args)
        real(*args)

    with worker(tmp_path, 0) as first, worker(tmp_path, 1) as second:
        monkeypatch.setattr(os, "link", twice)
        assert first.take(["x"]) and not second.take(["x"])


def test_a_file_system_without_links_is_named(tmp_path, monkeypatch):
    def refuse(*args):
        raise PermissionError(1, "Operation not permitted")

    with worker(tmp_path) as mine:
        monkeypatch.setattr(os, "link", refuse)
        with pytest.raises(UserError, match="has no hard links"):
            mine.take(["x"])


# ---- death ----


def hold(workdir, names, beat):
    with worker(workdir, 7, beat) as mine:
        assert mine.take(names)
        (workdir / "held").touch()
        time.sleep(60)


def holding(workdir, names, beat=BEAT):
    process = in_process(hold, workdir, names, beat)
    wait_for((workdir / "held").exists)
    return process


def test_a_killed_worker_of_this_machine_is_dead_at_once(tmp_path):
    process = holding(tmp_path, ["x"], beat=1000.0)  # its heartbeat would count for long
    told = []
    with worker(tmp_path, say=told.append) as heir:
        assert not heir.take(["x"])
        os.kill(process.pid, signal.SIGKILL)
        wait_for(lambda: heir.take(["x"]))
        assert told == [f"worker 7 ({heir.me.host}, process {process.pid}) has died; its trials "
                        "are free for others"]  # fmt: skip
    process.join()


@pytest.mark.parametrize("identity", [{"machine": "another"}, {"machine": ""}])
def test_a_silent_worker_of_another_machine_is_dead_after_a_while(tmp_path, monkeypatch, identity):
    as_another(monkeypatch, **identity)
    there = worker(tmp_path, 3).__enter__()
    monkeypatch.undo()
    there.take(["x"])
    there._ended.set()  # the heart stands still
    there._thread.join()
    with worker(tmp_path) as heir:
        began = time.monotonic()
        assert not heir.take(["x"])
        wait_for(lambda: heir.take(["x"]))
        assert claims_lib.SILENT * BEAT * 0.5 < time.monotonic() - began < 5


def test_a_beating_heart_holds_a_claim_for_ever(tmp_path, monkeypatch):
    as_another(monkeypatch, machine="another")
    with worker(tmp_path, 3) as there:
        monkeypatch.undo()
        there.take(["x"])
        with worker(tmp_path) as other:
            end = time.monotonic() + 3 * claims_lib.SILENT * BEAT
            while time.monotonic() < end:
                assert not other.take(["x"])
                time.sleep(0.02)


def test_clocks_of_machines_need_not_agree(tmp_path, monkeypatch):
    with worker(tmp_path, 3) as there, worker(tmp_path) as other:
        there.take(["x"])
        monkeypatch.setattr(time, "time", lambda: 4e9)  # this machine's clock is a century ahead
        assert not other.take(["x"])


def test_a_requeued_slurm_job_knows_that_its_former_self_is_dead(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "123")
    with monkeypatch.context() as patch:
        as_another(patch, machine="another")
        former = worker(tmp_path, 4, beat=1000.0).__enter__()
    former.take(["x"])
    with worker(tmp_path, 4, beat=1000.0) as same:  # twice in one job is no restart
        assert not same.take(["x"])
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with worker(tmp_path, 4, beat=1000.0) as again:
        assert again.take(["x"])
    former.__exit__()


def test_who_was_taken_for_dead_stops_and_never_comes_back(tmp_path, monkeypatch):
    as_another(monkeypatch, machine="another")
    suspended = worker(tmp_path, 3, beat=0.2).__enter__()
    monkeypatch.undo()
    suspended.take(["x"])
    suspended.check()
    os.utime(suspended._heartbeat, (1, 1))  # a heartbeat long ago
    with worker(tmp_path) as heir:
        assert heir.take(["x"])
        with pytest.raises(UserError, match=r"worker 3 .* was silent for more than 1.2 s"):
            suspended.check()
        with pytest.raises(UserError, match="others have taken over its trials"):
            suspended.take(["y"])
        time.sleep(0.5)  # its heart goes on, and revives nothing
        assert not suspended._heartbeat.exists()
        suspended.__exit__()
        assert heir.holders(["x"])["x"][0] == heir.me


def test_a_worker_that_ends_leaves_its_claims_free_and_no_file_of_its_own(tmp_path):
    with worker(tmp_path, 0) as first:
        first.take(["x"])
    assert all(first.me.token not in path.name for path in tmp_path.rglob("*"))
    with worker(tmp_path, 1, beat=1000.0) as second:
        assert second.take(["x"])


def test_a_claim_says_who_holds_it(tmp_path):
    with worker(tmp_path, 5) as mine:
        mine.take(["x"])
        (path,) = (tmp_path / "claims").glob("*.1")
        assert json.loads(path.read_text())["index"] == 5
        path.unlink()
        path.write_text("nonsense")
        with pytest.raises(UserError, match="is no claim of ours; stop all workers, delete"):
            mine.holders(["x"])
