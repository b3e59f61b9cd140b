"""What becomes of a minute without a bar when the sources have answered: the rules, in one place.

========== =================================================================================
filled     a source has the bar
missing    a source that covers the minute failed (one try more), or no source covers it
unresolved a source that covers the minute failed, and the last try is used up
no_trade   some source covers it, all that do have answered, and none has a bar
========== =================================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stream_coord.compute.gaps import FILLED, MISSING, NO_TRADE, UNRESOLVED, GapCells, Ints

if TYPE_CHECKING:  # a replay without sources needs nothing of what asks them
    from stream_coord.upkeep.asking import Answers


def reopen_for(cells: GapCells, sources: np.uint64) -> None:
    """Make minutes missing again of which a source may know more than what is remembered.

    That is, of those given up, a source that was not asked yet, and of those explained, one that
    did not cover them. Who has confirmed a minute empty is remembered, and not asked again.

    Args:
        cells: The minutes.
        sources: The bits of the sources that are there now.
    """
    unheard = (cells.asked & sources) != sources
    cells.tries[unheard & (cells.state != FILLED)] = 0  # those were tries of others
    given_up = unheard & (cells.state == UNRESOLVED)
    # Who covered an explained minute has said that it is empty; any other may cover it by now.
    explained = (cells.state == NO_TRADE) & ((cells.empty & sources) != sources)
    cells.state[given_up | explained] = MISSING


def learn(cells: GapCells, which: Ints, answers: Answers, attempts: int, now: int) -> None:
    """Take over what the sources answered.

    Args:
        cells: The minutes.
        which: Those that were asked for; positions in `cells`, int64, shape (N,).
        answers: What was answered for these N.
        attempts: How often a minute is asked for in vain before it is unresolved; at least 1.
        now: When they were asked, UTC microseconds.
    """
    found = answers.found
    failed = answers.failed & ~found
    cells.tries[which[failed]] += 1
    cells.last_try[which[found | failed | (answers.empty != cells.empty[which])]] = now
    in_vain = np.where(cells.tries[which] >= attempts, UNRESOLVED, MISSING)
    explained = np.where(answers.covered, NO_TRADE, MISSING)
    cells.state[which] = np.where(found, FILLED, np.where(failed, in_vain, explained))
    cells.source[which] = answers.source
    # Of a bar that is there only its own source matters.
    cells.asked[which] = np.where(found, 0, answers.asked)
    cells.empty[which] = np.where(found, 0, answers.empty)
