"""Work on the next item while the last one is in use."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import closing, suppress
from queue import SimpleQueue
from threading import Thread
from typing import Self, TypeVar

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


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


class AbandonedError(Exception):
    """Nobody waits any more for what was to be done."""


class Errand:
    """Work that may hang for ever, such as a question to a server, in a thread of its own.

    Whoever waits for it can be sent away with `abandon`, from any thread; the work itself cannot be
    stopped, and goes on until the process ends.
    """

    def __init__(self) -> None:
        self._work: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._thread: Thread | None = None
        self._send_away: Callable[[BaseException], None] = lambda _: None
        self._abandoned = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abandon()

    def run(self, work: Callable[[], _Answer]) -> _Answer:
        """Do some work and return what it returns, or raise what it raises; one at a time.

        Raises:
            AbandonedError: it was abandoned, before or meanwhile.
        """
        future: Future[_Answer] = Future()

        def do() -> None:
            try:
                answer = work()
            except BaseException as error:  # noqa: BLE001 - raised where it is waited for
                with suppress(InvalidStateError):
                    future.set_exception(error)
            else:
                with suppress(InvalidStateError):
                    future.set_result(answer)

        self._send_away = future.set_exception
        if self._abandoned:
            raise AbandonedError
        if self._thread is None:
            self._thread = Thread(target=self._serve, name="sc-errand", daemon=True)
            self._thread.start()
        self._work.put(do)
        return future.result()

    def abandon(self) -> None:
        """Send away whoever waits, now and later."""
        self._abandoned = True
        with suppress(InvalidStateError):  # it is done
            self._send_away(AbandonedError())

    def _serve(self) -> None:
        while True:
            self._work.get()()
