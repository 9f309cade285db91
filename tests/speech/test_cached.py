"""Folders in a cache are made once, and whole."""

import threading

import pytest

from mmer_jax.speech.cached import made_once


def test_of_several_at_once_one_makes_it(tmp_path):
    made, start = [], threading.Barrier(4)

    def make(folder):
        made.append(folder)
        folder.mkdir()
        (folder / "last").write_text("x")

    def ask():
        start.wait()
        assert made_once(tmp_path / "cache" / "it", "last", make) == tmp_path / "cache" / "it"
        assert (tmp_path / "cache" / "it" / "last").read_text() == "x"

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_what_was_not_made_to_its_end_is_not_there(tmp_path):
    def fail(folder):
        folder.mkdir()
        (folder / "first").write_text("x")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        made_once(tmp_path / "it", "last", fail)
    assert not (tmp_path / "it").exists()
    (tmp_path / "it").mkdir()  # by somebody else, and unfinished
    made_once(tmp_path / "it", "last", lambda folder: (folder.mkdir(), (folder / "last").touch()))
    assert [path.name for path in (tmp_path / "it").iterdir()] == ["last"]
