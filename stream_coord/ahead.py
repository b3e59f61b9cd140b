"""Work on the next item while the last one is in use."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

_Item = TypeVar("_Item")


def one_ahead(items: Generator[_Item]) -> Generator[_Item]:
    """Yield what `items` yields, making the next item in a thread meanwhile.

    One item is made ahead and no more, so that two exist at a time if the caller lets go of one
    before it asks for the next. What `items` raises is raised here, in its turn. The thread is the
    same for all items (native libraries keep memory for each thread), and has ended when this
    generator has, or is closed: native code must not run on while the interpreter goes away.
    """
    with closing(items), ThreadPoolExecutor(1, "sc-ahead") as thread:
        future = thread.submit(next, items, None)
        while (item := future.result()) is not None:
            future = thread.submit(next, items, None)
            yield item
            del item
