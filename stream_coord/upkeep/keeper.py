"""Upkeep of one replayed session: at simulated check times, missing minutes are looked after.

What the sources answer does not depend on simulated time, so all gaps of a session are asked for
in one call; but an answer takes effect at the check at which its minute is due, never before. A
check has something to do only where a fill, a synthetic bar or an attempt is due, and the replay
need not stop for the others.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from stream_coord.bars import FIELDS, SYNTHETIC
from stream_coord.bars import FILLED as FILLED_BAR
from stream_coord.calendars import Session
from stream_coord.compute.gaps import FILLED, MISSING
from stream_coord.session.block import Block, Bools, Floats, Ints
from stream_coord.session.data import SessionData
from stream_coord.session.quality import SessionQuality, names_in, recall
from stream_coord.session.series import Kept
from stream_coord.upkeep import Upkeep
from stream_coord.upkeep.checks import Checks, columns, flat_bars, note_known, reopen_unanswered
from stream_coord.upkeep.states import learn

if TYPE_CHECKING:
    from stream_coord.stores.ledger import Disagreement


class Keeper:
    """Looks after the minutes of one session that have no bar.

    A minute is *open* while a source that may have its bar has not answered and may be asked
    again. `check` asks for all open minutes of the session when one of them is due. The state of a
    minute is what the sources said of it; whoever looks sees it from the minute's own check on.

    Args:
        upkeep: How.
        session: The session.
        block: Its base bars as they are stored; its newest session is `session`.
        expected: Which symbols are held to account; bool, shape (S,).

    Attributes:
        expected: As given.
        seconds: What all this has taken so far.
        disagreements: Minutes for which a source has other values than one before it.
        synthesized: How many minutes got a flat bar.
    """

    def __init__(self, upkeep: Upkeep, session: Session, block: Block, expected: Bools) -> None:
        begun = perf_counter()
        self.expected = expected
        self.disagreements: list[Disagreement] = []
        self.synthesized = 0
        self._upkeep = upkeep
        self._session = session
        self._block = block
        self._enquirer = upkeep.enquirer if upkeep.enquirer and upkeep.enquirer.names else None
        self._slots = block.today + np.flatnonzero(block.regular[block.today :])
        present = columns(block.present, self._slots)
        self._present = np.count_nonzero(present, axis=1)
        states = upkeep.remembered(session, block.symbols)
        names = names_in(states, self._enquirer.names if self._enquirer else ())
        starts = block.starts[self._slots]
        self._cells, self._once_filled = recall(
            present, expected, block.symbols, starts, states, names
        )
        cells = self._cells
        self._open = reopen_unanswered(cells, self._enquirer)
        self._values: Floats = np.empty((len(FIELDS), len(cells)))
        self._when = Checks(upkeep, session.open, session.end)
        self._checks = self._when.of(block.ends[self._slots])[cells.slots]
        self._order = np.argsort(self._checks, kind="stable")
        self._ordered_checks = self._checks[self._order]
        self._seen = 0  # so many of `_order` have had their check
        self._waiting = np.empty(0, np.int64)  # of those, the ones that are still open
        self._told = np.zeros(len(cells), np.bool_)  # answered in this run
        self._run: Callable[[Callable[[], None]], None] = lambda work: work()
        self._last_check = session.open
        self._plan()
        self.seconds = perf_counter() - begun

    def begin(
        self, data: SessionData, run: Callable[[Callable[[], None]], None] | None = None
    ) -> None:
        """Tell the session store, as the session begins, what is known of its minutes.

        It shows of that only what is due.

        Args:
            data: The session store.
            run: Calls what asks the sources, which may take long, and returns when that has; by
                default it is simply called.
        """
        self._run = run or self._run
        data.grace_micros = self._upkeep.grace_micros
        data.check_micros = self._upkeep.check_micros
        note_known(self._cells, self._slots, data)

    @property
    def next_check(self) -> int | None:
        """The next check that has something to do, UTC microseconds; None: there is none."""
        at = int(np.searchsorted(self._stops, self._last_check, "right"))
        planned = self._stops[at : at + 1].tolist()
        if len(self._waiting):
            again = self._when.again(self._last_check)
            planned += [] if again is None else [again]
        return min(planned, default=None)

    def look_ahead(self) -> None:
        """Ask for all open minutes now, ahead of the checks; that a source fails does not count.

        Once a source has failed nothing is asked ahead any more, so that in which order it is
        asked does not depend on how quick two threads are.
        """
        begun = perf_counter()
        if self.has_questions and self._enquirer and not self._enquirer.has_failed:
            self._ask(self._session.open, np.empty(0, np.int64))
            self._plan()
        self.seconds += perf_counter() - begun

    @property
    def has_questions(self) -> bool:
        """Whether there is anything to ask a source for."""
        return bool(self._open.any())

    def check(self, now: int, data: SessionData) -> list[Kept]:
        """Do what is due at a check, and return what it changed, in order of delivery.

        Args:
            now: The time of the check, UTC microseconds.
            data: Where fills and synthetic bars go.
        """
        begun = perf_counter()
        upto = int(np.searchsorted(self._ordered_checks, now, "right"))
        new, self._seen = self._order[self._seen : upto], upto
        due = np.concatenate([self._waiting, new])
        if self._open[due].any() and self._when.may_ask(now):
            self._run(lambda: self._ask(now, due))
            self._plan()
            note_known(self._cells, self._slots, data)
        self._last_check = now
        self._waiting = due[self._open[due]]
        kept = [self._fill(np.sort(due[self._cells.state[due] == FILLED]), data)]
        if self._upkeep.synthesize:
            kept.append(self._synthesize(np.sort(new), data))
        self.seconds += perf_counter() - begun
        return [each for each in kept if each is not None]

    def quality(self) -> SessionQuality:
        """Return what the session was worth; called when it is over."""
        cells = self._cells
        # Of a gap as a whole, that is when the last of its minutes was due.
        cells.last_try[self._told] = 0
        runs = cells.runs()
        lengths = runs.stop - runs.first
        due = np.repeat(self._checks[lengths.cumsum() - 1], lengths)
        cells.last_try[self._told] = due[self._told]
        filled = np.bincount(cells.rows[cells.state == FILLED], minlength=len(self._present))
        return SessionQuality(
            self._session,
            self._block.symbols,
            self.expected,
            self._present + filled,
            cells.merged(self._once_filled),
            self._block.starts[self._slots],
            self._block.interval.micros,
        )

    def filled(self) -> dict[str, int]:
        """Return how many minutes were filled, by the identity of the source; at the end."""
        cells = self._cells
        sources = cells.source[cells.state == FILLED]
        counts = np.bincount(sources, minlength=len(cells.names)).tolist()
        return {name: count for name, count in zip(cells.names, counts, strict=True) if count}

    # -- when ----------------------------------------------------------------------------------

    def _plan(self) -> None:
        """Note the checks at which a minute is to be filled, synthesized or asked for."""
        acting = self._open | (self._cells.state == FILLED)
        if self._upkeep.synthesize:
            acting[:] = True
        self._stops = np.unique(self._checks[acting])

    # -- asking --------------------------------------------------------------------------------

    def _ask(self, now: int, due: Ints) -> None:
        """Ask for all open minutes of the session; what they become shows at their checks.

        Args:
            now: When, UTC microseconds.
            due: The minutes for which it counts as an attempt.
        """
        if self._enquirer is None:
            return
        cells, chosen = self._cells, np.flatnonzero(self._open)
        rows, slots = cells.rows[chosen], cells.slots[chosen]
        answers = self._enquirer.ask(
            self._block.symbols,
            rows,
            self._block.starts[self._slots[slots]],
            cells.empty[chosen],
            cells.asked[chosen],
        )
        failed = answers.failed & ~answers.found
        early = chosen[~np.isin(chosen, due)]
        tries = cells.tries[early]
        learn(cells, chosen, answers, self._upkeep.attempts, now)
        # A minute that is not due yet is neither tried in vain nor given up.
        cells.tries[early] = tries
        cells.state[np.intersect1d(early, chosen[failed])] = MISSING
        self._told[chosen[~failed & (answers.found | answers.covered)]] = True
        self._open[chosen] = failed & (cells.state[chosen] == MISSING)
        self._values[:, chosen] = answers.values
        self.disagreements += answers.disagreements
        if len(due):
            self._when.asked(now, bool(failed.any()))

    # -- what becomes visible ------------------------------------------------------------------

    def _fill(self, filled: Ints, data: SessionData) -> Kept | None:
        if not len(filled):
            return None
        cells = self._cells
        rows, slots = cells.rows[filled], self._slots[cells.slots[filled]]
        flags = np.full(len(filled), FILLED_BAR, np.uint8)
        return data.keep(rows, slots, self._values[:, filled], flags)

    def _synthesize(self, due: Ints, data: SessionData) -> Kept | None:
        """Put a flat bar at the last close into each minute that has no bar, slot by slot."""
        cells = self._cells
        holes = due[cells.state[due] != FILLED]
        rows, slots, values = flat_bars(
            self._block, cells.rows[holes], self._slots[cells.slots[holes]]
        )
        if not len(rows):
            return None
        self.synthesized += len(rows)
        return data.keep(rows, slots, values, np.full(len(rows), SYNTHETIC, np.uint8))
