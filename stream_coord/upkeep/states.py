"""What becomes of a minute without a bar when the sources have answered: the rules, in one place.

========== =================================================================================
filled     a source has the bar
missing    a source that covers the minute failed (one try more), or no source covers it
unresolved a source that covers the minute failed, and the last try is used up
no_trade   some source covers it, all that do have answered, and none has a bar
========== =================================================================================
"""

from __future__ import annotations

import numpy as np

from stream_coord.compute.gaps import FILLED, MISSING, NO_TRADE, UNRESOLVED, GapCells, Ints
from stream_coord.upkeep.asking import Answers


def reopen_for(cells: GapCells, sources: np.uint64) -> None:
    """Make minutes missing again that are explained or given up, where a source is new to them.

    Who has confirmed such a minute empty is still remembered, and need not be asked again.

    Args:
        cells: The minutes.
        sources: The bits of the sources that are there now.
    """
    is_new = (cells.asked & sources) != sources
    given_up = is_new & (cells.state == UNRESOLVED)
    cells.tries[given_up] = 0
    cells.state[given_up | (is_new & (cells.state == NO_TRADE))] = MISSING


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
    cells.last_try[which[answers.covered | failed]] = now
    in_vain = np.where(cells.tries[which] >= attempts, UNRESOLVED, MISSING)
    explained = np.where(answers.covered, NO_TRADE, MISSING)
    cells.state[which] = np.where(found, FILLED, np.where(failed, in_vain, explained))
    cells.source[which] = answers.source
    # Of a bar that is there only its own source matters.
    cells.asked[which] = np.where(found, 0, answers.asked)
    cells.empty[which] = np.where(found, 0, answers.empty)
