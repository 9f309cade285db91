"""Reading ahead: the same items, one ahead, and no thread that outlives its reader."""

import threading

import pytest

from mmer_jax.data.ahead import read_ahead


def threads():
    return [t for t in threading.enumerate() if t.name.startswith("read-ahead")]


def counting(n, made, closed):
    try:
        for i in range(n):
            made.append(i)
            yield i
    finally:
        closed.append(True)


def test_items_come_in_order():
    assert list(read_ahead(i for i in range(50))) == list(range(50))
    assert list(read_ahead(i for i in range(0))) == [] and not threads()


def test_the_next_item_is_made_while_this_one_is_used_and_no_other():
    begun, go_on = threading.Event(), threading.Event()
    made = []

    def items():
        yield 0
        begun.set()
        assert go_on.wait(10)
        made.append(1)
        yield 1
        made.append(2)
        yield 2

    reader = read_ahead(items())
    assert next(reader) == 0 and begun.wait(10) and not made
    go_on.set()
    assert next(reader) == 1
    reader.close()
    assert made in ([1], [1, 2])


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_who_takes_no_more_leaves_no_thread(taken):
    made, closed = [], []
    items = counting(100, made, closed)
    reader = read_ahead(items)
    for _, _ in zip(range(taken), reader, strict=False):
        pass
    del reader
    assert not threads() and len(made) <= taken + 2
    assert closed == ([True] if made else [])


def test_an_error_comes_where_its_item_would():
    def items():
        yield 1
        raise ValueError("of the thread")

    reader = read_ahead(items())
    assert next(reader) == 1
    with pytest.raises(ValueError, match="of the thread"):
        next(reader)
    assert not threads()


def test_an_error_of_the_reader_ends_the_thread():
    made, closed = [], []
    with pytest.raises(KeyError):
        for item in read_ahead(counting(100, made, closed)):
            if item == 2:
                raise KeyError(item)
    assert not threads() and closed == [True] and len(made) <= 4
