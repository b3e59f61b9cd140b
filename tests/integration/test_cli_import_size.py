"""``sc import`` of files larger than its memory, and its words when it is stopped."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from stream_coord.bars import FIELDS
from stream_coord.stores.ledger import open_ledger

COMMAND = Path(sys.executable).with_name("sc")
SYMBOLS, DAYS, MINUTES = 20, 60, 1_440


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """Write a file of 1,728,000 bars, symbol by symbol."""
    start = pl.datetime_range(
        pl.datetime(2024, 1, 1), pl.datetime(2024, 3, 1), "1m", closed="left", eager=True
    ).alias("time")
    symbols = pl.DataFrame({"symbol": [f"S{n}" for n in range(SYMBOLS)]})
    bars = symbols.join(start.to_frame(), how="cross")
    path = tmp_path / "bars.csv"
    numbers = {name: pl.lit(10.5) for name in FIELDS}
    bars.with_columns(pl.col("time").dt.strftime("%Y-%m-%d %H:%M"), **numbers).write_csv(path)
    return path


def start(folder: Path, *args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [COMMAND, "import", *map(str, args), "--tz", "UTC", "--label", "open"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"COLUMNS": "200"},
    )


def commits(folder: Path) -> int:
    return len(list(folder.glob("data/bars/_delta_log/*.json")))


def test_an_interrupt_says_what_is_stored_and_again_completes_it(
    large: Path, sc: Callable[..., object]
) -> None:
    folder = large.parent
    sc("init", ".")
    job = start(folder, large)
    # The table's own, and two of bars: the first of them is surely sealed.
    while commits(folder) < 3 and job.poll() is None:
        time.sleep(0.01)
    job.send_signal(signal.SIGINT)
    out, err = job.communicate(timeout=60)
    assert job.returncode == 130, (out, err)
    assert err.startswith("Interrupted: ")
    assert err.endswith(" rows of 1 file are stored; import the same files again to complete it.\n")
    with open_ledger("sqlite:///data/ledger.db", folder) as ledger:
        (stopped,) = ledger.imports()
        assert err.split()[1] == f"{stopped.rows:,}"
        assert 0 < stopped.stored == stopped.rows < SYMBOLS * DAYS * MINUTES
        again = start(folder, large)
        again.communicate(timeout=60)
        assert again.returncode == 0
        (done, _) = ledger.imports()
    assert done.rows == SYMBOLS * DAYS * MINUTES == done.stored + done.duplicates
    assert done.duplicates >= stopped.stored


def test_a_terminal_sees_rate_and_time_left(large: Path, sc: Callable[..., object]) -> None:
    """On stderr, if it is a terminal; a pipe sees nothing."""
    sc("init", ".")
    main, side = pty.openpty()
    job = subprocess.Popen(
        [COMMAND, "import", large, "--tz", "UTC", "--label", "open"],
        cwd=large.parent,
        stdout=subprocess.DEVNULL,
        stderr=side,
        env=os.environ | {"COLUMNS": "150", "TERM": "xterm"},
    )
    os.close(side)
    shown = b""
    try:
        while chunk := os.read(main, 4096):
            shown += chunk
    except OSError:  # the other end is closed
        pass
    os.close(main)
    assert job.wait(60) == 0
    assert b" rows/s" in shown
    assert b"%" in shown
    assert shown.count(b"0:00:0") > 1
