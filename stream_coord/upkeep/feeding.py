"""Upkeep of a session whose bars come from a feed: what is missing is known only as time passes.

The rules are those of `stream_coord.upkeep.keeper`; what differs is what may be taken for granted.
At each check the session store is looked at as it is then. A minute that was missing is forgotten
once the feed has brought its bar after all; and one that no source covers is asked for again at
each check, because a source that lags behind may cover it by then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from stream_coord.bars import FILLED as FILLED_BAR
from stream_coord.bars import SYNTHETIC
from stream_coord.compute.gaps import FILLED, MISSING, STATES, GapCells, gap_ranges, gap_rows
from stream_coord.compute.quality import GapRow
from stream_coord.session.block import Block, Floats, Ints
from stream_coord.session.data import SessionData
from stream_coord.session.quality import names_in
from stream_coord.session.series import Kept
from stream_coord.upkeep import Upkeep
from stream_coord.upkeep.checks import Checks, columns, flat_bars, note_known, reopen_unanswered
from stream_coord.upkeep.states import learn

if TYPE_CHECKING:
    from stream_coord.stores.ledger import Disagreement
    from stream_coord.upkeep.asking import Answers, Enquirer

_OURS = FILLED_BAR | SYNTHETIC
"""The flags of a bar that is there by upkeep's doing, not by the feed's."""


@dataclass(frozen=True)
class _Question:
    """What the sources are asked for, and what will come of it.

    Attributes:
        now: When they were asked, UTC microseconds.
        check: The check at which that was due.
        cells: What was known then.
        asked: Which of the cells they were asked for.
        future: Their answers.
    """

    now: int
    check: int
    cells: GapCells
    asked: Ints
    future: Future[Answers]


def at_once(work: Callable[[], Answers]) -> Future[Answers]:
    """Ask here and now."""
    future: Future[Answers] = Future()
    future.set_result(work())
    return future


class FeedKeeper:
    """Looks after the minutes of the current session of a session store that a feed fills.

    Not for several threads at a time; the feed may add bars meanwhile, somebody may load history,
    and once somebody has rolled nothing is written any more.

    Args:
        upkeep: How.
        data: The session store.
        until: When the last check is, UTC microseconds; not before the session's end.
        expected: The symbols that are held to account; None: all.
        run: Begins what asks the sources, which may take long; an answer that is not there when it
            returns is taken at a later check.

    Attributes:
        session: The session.
    """

    def __init__(
        self,
        upkeep: Upkeep,
        data: SessionData,
        until: int,
        expected: Collection[str] | None = None,
        run: Callable[[Callable[[], Answers]], Future[Answers]] = at_once,
    ) -> None:
        block = data._pristine.base
        self.session = block.sessions[-1]
        self._block = block
        self._disagreements: list[Disagreement] = []
        self._upkeep = upkeep
        self._data = data
        self._enquirer = upkeep.enquirer if upkeep.enquirer and upkeep.enquirer.names else None
        self._symbols = block.symbols
        self._expected = np.array(
            [expected is None or name in expected for name in block.symbols], np.bool_
        )
        self._regular = np.flatnonzero(block.regular[block.today :])
        self._starts = block.starts[block.today + self._regular]
        self._when = Checks(upkeep, self.session.open, until)
        self._checks = self._when.of(block.ends[block.today + self._regular])
        self._last_check = self.session.open
        self._due = 0  # so many minutes of the grid have had their check
        self._flat = 0  # of these, so many were given a flat bar where they had none
        self._run = run
        self._question: _Question | None = None
        self._lagging = False  # whether the sources did not cover all that was asked for
        self._waiting = False  # whether one of them is still to be asked for
        states = upkeep.remembered(self.session, block.symbols)
        self._names = names_in(states, self._enquirer.names if self._enquirer else ())
        row_of = {symbol: row for row, symbol in enumerate(block.symbols)}
        # A bar that somebody filled once is not in the store that begins now.
        absent = [row for row in states if row.state != STATES[FILLED]]
        self._remembered = gap_ranges(absent, row_of, self._starts, self._names)
        reopen_unanswered(self._remembered, self._enquirer)
        self._known = self._remembered
        data.grace_micros = upkeep.grace_micros
        data.check_micros = upkeep.check_micros

    @property
    def next_check(self) -> int | None:
        """The next check, UTC microseconds; None: the last one is past.

        It is past where a source that took its time has answered since.
        """
        if self._question and self._question.future.done():
            return self._last_check
        at = int(np.searchsorted(self._checks, self._last_check, "right"))
        planned = self._checks[at : at + 1].tolist()
        if self._waiting:
            again = self._when.again(self._last_check)
            planned += [] if again is None else [again]
        return min(planned, default=None)

    def check(self, now: int) -> list[Kept]:
        """Do what is due, and return what it changed, in order of delivery.

        Args:
            now: UTC microseconds; all checks up to then are due. The session store shows all bars
                of the session that have ended by then.
        """
        check = self._when.at(now)
        self._due = int(np.searchsorted(self._checks, now, "right"))
        kept = [self._take()]
        if self._question is None and self._enquirer and self._when.may_ask(check):
            self._ask(self._enquirer, now, check)
            kept.append(self._take())
        cells, (block, slots) = self._gaps(), self._block_and_slots()
        self._waiting = self._enquirer is not None and bool((cells.state == MISSING).any())
        note_known(cells, slots, self._data, block)
        if self._upkeep.synthesize:
            holes = np.flatnonzero((cells.slots >= self._flat) & (cells.state != FILLED))
            rows, at, values = flat_bars(block, cells.rows[holes], slots[cells.slots[holes]])
            kept.append(self._keep(block, rows, at, values, SYNTHETIC))
        # Last, so that what is raised on the way is not the end of it: the check is still due.
        self._flat, self._last_check = self._due, check
        return [each for each in kept if each is not None]

    def take_disagreements(self) -> list[Disagreement]:
        """Return the minutes for which a source has other values than one before it, only once."""
        taken, self._disagreements = self._disagreements, []
        return taken

    def gaps(self) -> list[GapRow]:
        """Return what is known of the minutes that have had their check, by symbol and time.

        `last_try` of a gap is when any of its minutes was asked for last.
        """
        date_text, length = self.session.date.isoformat(), self._data.interval.micros
        cells = self._gaps()
        tried, cells.last_try = cells.last_try, np.zeros_like(cells.last_try)
        runs = cells.runs()
        if len(runs):
            lengths = runs.stop - runs.first
            runs.last_try[:] = np.maximum.reduceat(tried, lengths.cumsum() - lengths)
        return list(gap_rows(runs, self._symbols, date_text, self._starts, length, self._names))

    def _block_and_slots(self) -> tuple[Block, Ints]:
        """Return the base bars as they are now, and the slot of each minute of the grid in them.

        They are in another block when history was loaded. Once the session is over the last one
        is as good as any: nothing of it is kept.
        """
        block = self._data._pristine.base
        if block.sessions[-1] == self.session:
            self._block = block
        return self._block, self._block.today + self._regular

    def _gaps(self) -> GapCells:
        """Return the due minutes of which the feed has brought no bar, and what is known of them.

        Not under the store's lock: a bar that comes in this moment is seen now or the next time.
        """
        block, slots = self._block_and_slots()
        due = slots[: self._due]
        brought = columns(block.present, due) & (columns(block.flags, due) & _OURS == 0)
        cells = GapCells.of(brought, self._expected, self._names)
        cells.apply_ranges(self._remembered)
        cells.apply_ranges(self._known)
        return cells

    def _ask(self, enquirer: Enquirer, now: int, check: int) -> None:
        """Ask for all that is missing."""
        cells = self._gaps()
        asked = np.flatnonzero(cells.state == MISSING)
        if len(asked):
            rows, starts = cells.rows[asked], self._starts[cells.slots[asked]]
            empty, before = cells.empty[asked], cells.asked[asked]

            def ask() -> Answers:
                if self._lagging:
                    enquirer.close()  # to see what the sources have by now
                return enquirer.ask(self._symbols, rows, starts, empty, before)

            self._question = _Question(now, check, cells, asked, self._run(ask))

    def _take(self) -> Kept | None:
        """Fill what was found, if anything was answered, and learn from it."""
        question = self._question
        if question is None or not question.future.done():
            return None
        self._question = None
        try:
            answers = question.future.result()
        except CancelledError:  # nobody waits for an answer any more
            return None
        if self._data.session != self.session:  # nor has anybody use for it
            return None
        kept = self._fill(question, answers)
        learn(question.cells, question.asked, answers, self._upkeep.attempts, question.now)
        self._known = question.cells.runs()
        self._lagging = not answers.covered.all()
        self._when.asked(question.check, bool((answers.failed & ~answers.found).any()))
        self._disagreements += answers.disagreements
        return kept

    def _fill(self, question: _Question, answers: Answers) -> Kept | None:
        cells, asked = question.cells, question.asked
        block, slots = self._block_and_slots()
        rows, at = cells.rows[asked], slots[cells.slots[asked]]
        # While the sources were asked the feed may have brought the bar.
        absent = ~block.present[rows, at] | (block.flags[rows, at] & _OURS != 0)
        found = np.flatnonzero(answers.found & absent)
        return self._keep(block, rows[found], at[found], answers.values[:, found], FILLED_BAR)

    def _keep(
        self, block: Block, rows: Ints, slots: Ints, values: Floats, flag: int
    ) -> Kept | None:
        if not len(rows):
            return None
        flags = np.full(len(rows), flag, np.uint8)
        return self._data.keep(rows, slots, values, flags, of=block)
