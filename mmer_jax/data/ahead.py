"""Reading ahead: what an iterator yields is made by another thread while this one works."""

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
END = object()


def read_ahead(items: Generator[T, None, None]) -> Iterator[T]:
    """The same items, each of them begun when the one before it is handed out.

    The thread never waits for whoever takes the items, so that it ends when these are taken no
    more: when the generator is closed, or nobody refers to it. An exception of `items` is raised
    where the item is taken.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as thread:
        try:
            coming = thread.submit(next, items, END)
            while (item := coming.result()) is not END:
                coming = thread.submit(next, items, END)
                yield item  # type: ignore[misc]
        finally:
            coming.cancel()
            thread.submit(items.close).result()
