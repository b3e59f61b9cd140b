"""Work on the next item while the last one is in use."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import CancelledError, Future, InvalidStateError, ThreadPoolExecutor
from contextlib import closing, suppress
from queue import SimpleQueue
from threading import Lock, Thread
from typing import TypeVar

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


class Errands:
    """Work that may hang for ever, such as questions to a server: done in order, in one thread.

    Nobody has to wait for the thread: where its work hangs, it ends with the process. Who waits for
    some work can be sent away with `abandon`; the work itself cannot be stopped.
    """

    def __init__(self) -> None:
        self._changing = Lock()
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._send_away: list[Callable[[BaseException], None]] = []
        self._abandoned = False

    def start(self, work: Callable[[], _Answer]) -> Future[_Answer]:
        """Have some work done when all that was started before is, and return what will come of it.

        Whoever waits for it gets a `CancelledError` when the errands are abandoned; once they are,
        no more work is done.
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

        with self._changing:
            if self._abandoned:
                future.set_exception(CancelledError())
                return future
            if self._thread is None:
                self._thread = Thread(target=self._serve, name="sc-errands", daemon=True)
                self._thread.start()
            # No more than two are waited for: the one at hand, and the one ahead.
            self._send_away = [*self._send_away[-2:], future.set_exception]
            self._work.put(do)
        return future

    def abandon(self) -> None:
        """Send away whoever waits, now and later, and let the thread end; from any thread."""
        with self._changing:
            self._abandoned = True
            if self._thread is not None:
                self._work.put(None)
            for send_away in self._send_away:
                with suppress(InvalidStateError):  # it is done
                    send_away(CancelledError())

    def _serve(self) -> None:
        while (do := self._work.get()) is not None:
            do()
