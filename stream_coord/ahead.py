"""Work on the next item while the last one is in use."""

from __future__ import annotations

from collections.abc import Generator
from threading import Thread
from typing import Generic, TypeVar

_Item = TypeVar("_Item")


def one_ahead(items: Generator[_Item]) -> Generator[_Item]:
    """Yield what `items` yields, making the next item in a thread meanwhile.

    One item is made ahead and no more, so that two exist at a time if the caller lets go of one
    before it asks for the next. What `items` raises is raised here, in its turn. The thread has
    ended when this generator has, or is closed: native code that still ran while the interpreter
    goes away would crash it.
    """
    ahead = _Ahead(items)
    try:
        while found := ahead.result():
            ahead = _Ahead(items)
            yield found.pop()
    finally:
        ahead.join()
        items.close()


class _Ahead(Generic[_Item]):
    """An item that is being made in a thread."""

    def __init__(self, items: Generator[_Item]) -> None:
        self._found: list[_Item] = []
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, args=(items,), name="sc-ahead")
        self._thread.start()

    def _run(self, items: Generator[_Item]) -> None:
        try:
            self._found.append(next(items))
        except StopIteration:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again where the result is awaited
            self._error = error

    def join(self) -> None:
        self._thread.join()

    def result(self) -> list[_Item]:
        """Return the item in a list of its own, which is empty where there is none left."""
        self.join()
        if self._error is not None:
            raise self._error
        return self._found
