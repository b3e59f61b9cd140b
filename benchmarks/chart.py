"""Numbers in a row as a chart of block characters."""

from __future__ import annotations

from collections.abc import Sequence

_HEIGHT, _WIDTH = 8, 100
_EIGHTHS = " ▁▂▃▄▅▆▇█"


def chart(numbers: Sequence[float], unit: str, things: str) -> str:
    """Return columns that begin at 0, with both axes labelled.

    Where there are more numbers than columns each column is the largest of some neighbours, so
    that no peak gets lost.

    Args:
        numbers: Positive; at least one.
        unit: Of the numbers.
        things: What they are numbers of, one each, from the first on.
    """
    each = -(-len(numbers) // _WIDTH)
    columns = [max(numbers[at : at + each]) for at in range(0, len(numbers), each)]
    top = max(columns)
    eighths = [round(column / top * _HEIGHT * 8) for column in columns]
    labels = {_HEIGHT - 1: f"{top:,.4g}", _HEIGHT // 2 - 1: f"{top / 2:,.4g}"}
    margin = max(map(len, (unit, *labels.values())))
    rows = [
        f"{labels.get(row, ''):>{margin}} {'┤' if row in labels else '│'}"
        + "".join(_EIGHTHS[min(max(height - 8 * row, 0), 8)] for height in eighths)
        for row in reversed(range(_HEIGHT))
    ]
    first, last = "1", f"{len(numbers)} {things}"
    axis = f"{'0':>{margin}} └{'─' * len(columns)}"
    ticks = f"{'':{margin + 2}}{first}{last:>{max(len(columns) - len(first), len(last) + 1)}}"
    return "\n".join([f"{unit:>{margin}}", *rows, axis, ticks])
