"""A strategy on all symbols at once: which one rose most in the last minutes?

History and today are one run of minutes: in the first ones of a day the last minutes are those of
the evening before.

sc replay --from 2018-11-02 --to 2018-11-23 --strategy cross_section.py:Strongest
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from stream_coord.strategy import Strategy


class Strongest(Strategy):
    """Counts how many minutes each symbol was the strongest.

    Args:
        minutes: Over how many minutes the rise is measured.
    """

    def __init__(self, minutes: int = 15) -> None:
        self.minutes = minutes
        self.leads: Counter[str] = Counter()

    def on_step(self, now: int) -> None:
        """Rank the symbols once a minute; a symbol with a hole at either end has no rank."""
        rise = self.session.cross_section() / self.session.cross_section(back=self.minutes)
        if not np.isnan(rise).all():
            self.leads[self.session.symbols[int(np.nanargmax(rise))]] += 1

    def result(self) -> object:
        """Return the leaders, most frequent first."""
        return dict(self.leads.most_common())
