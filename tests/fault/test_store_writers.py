"""Eight processes import and revise the same bars at once, into every kind of store."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from stream_coord.interval import Interval
from stream_coord.stores import open_store
from stream_coord.stores.ledger import open_ledger

PROCESSES = 8
MINUTES = 30
MINUTE = Interval.parse("1m")
FIELDS = ("open", "high", "low", "close", "volume")


def write_file(folder: Path, number: int) -> Path:
    """Write bars of its own, bars that all files have, and bars of which each says otherwise."""
    prices = {f"OWN{number}": 10.0, "EQUAL": 20.0, "CONTESTED": 30.0 + number}
    lines = [
        f"{symbol},2018-11-02T15:{minute:02},{price},{price},{price},{price},100"
        for symbol, price in prices.items()
        for minute in range(MINUTES)
    ]
    file = folder / f"{number}.csv"
    file.write_text("\n".join(["symbol,time,open,high,low,close,volume", *lines, ""]))
    return file


@pytest.mark.parametrize("kind", ["delta", "sqlite", "postgres"])
def test_what_eight_importers_leave_is_what_some_order_of_them_would_have(
    sc: Callable[..., Any], tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    ledger = "sqlite:///ledger.db"
    if kind == "postgres":
        store = ledger = request.getfixturevalue("postgres_url")
    else:
        store = {"delta": "delta:bars", "sqlite": "sqlite:///bars.db"}[kind]
    assert sc("init").code == 0
    files = [write_file(tmp_path, number) for number in range(PROCESSES)]

    def import_one(file: Path) -> Any:
        return sc(
            *("import", file, "--tz", "UTC", "--label", "open", "--json"),
            SC_STORE__URL=store,
            SC_LEDGER__URL=ledger,
        )

    with ThreadPoolExecutor(PROCESSES) as pool:
        answers = list(pool.map(import_one, files))
    assert [answer.code for answer in answers] == [0] * PROCESSES, answers
    fates = [answer.document for answer in answers]
    for told in fates:
        assert told["rows"] == 3 * MINUTES
        assert told["stored"] + told["duplicates"] + told["revised"] == told["rows"]
    assert sum(told["stored"] for told in fates) == (PROCESSES + 2) * MINUTES
    assert sum(told["duplicates"] for told in fates) == (PROCESSES - 1) * MINUTES
    assert sum(told["revised"] for told in fates) == (PROCESSES - 1) * MINUTES

    with closing(open_store(store, tmp_path)) as opened:
        bars = opened.read(MINUTE, None, 0, 10**17)
    assert len(bars) == (PROCESSES + 2) * MINUTES
    final = bars.filter(symbol="CONTESTED")
    [last] = final["close"].unique().to_list()
    with open_ledger(ledger, tmp_path) as opened_ledger:
        revisions = opened_ledger.revisions("CONTESTED")
    assert revisions["sealed"].all()
    chains = {
        chain_of(dict(minute.select("close", "old_close").rows()), last)
        for _, minute in revisions.group_by("start")
    }
    # one order for all minutes: each import was one step
    assert len(chains) == 1
    [chain] = chains
    assert sorted(chain) == [30.0 + number for number in range(PROCESSES)]


def chain_of(replaced: dict[float, float], last: float) -> tuple[float, ...]:
    """Return the values of one bar from the newest to the first."""
    chain = [last]
    while chain[-1] in replaced:
        chain.append(replaced.pop(chain[-1]))
    assert not replaced
    return tuple(chain)
