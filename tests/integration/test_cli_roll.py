"""`sc roll` as cron and people run it, on six real sessions; what lacks was counted by hand."""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from subprocess import PIPE
from textwrap import dedent
from typing import Any

import pytest

from stream_coord.filling import FILLING
from stream_coord.interval import Interval
from stream_coord.stores import open_store
from stream_coord.stores.ledger import open_ledger
from tests.conftest import COMMAND

SESSIONS = (
    "2013-10-04",
    "2013-10-07",
    "2013-10-08",
    "2013-10-09",
    "2013-10-10",
    "2013-10-11",
    "2013-10-14",
)
MISSING = {
    ("IBM", "2013-10-04"): "2013-10-04 16:39:00Z",
    ("AIG", "2013-10-07"): "2013-10-07 17:47:00Z",
    ("IBM", "2013-10-11"): "2013-10-11 16:46:00Z",
}
EVENING = "T20:00:00Z"
"""New York closes at 16:00, which is 20:00 UTC."""


@pytest.fixture(scope="module")
def made(real_bars: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the settings' store of AIG and IBM, and another with the minutes that it lacks."""
    folder = tmp_path_factory.mktemp("stores")

    def sc(*arguments: str | Path, **environ: str) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SC_")}
        command = [COMMAND, *arguments, "--quiet"]
        subprocess.run(command, cwd=folder, env=kept | environ, check=True, timeout=300)

    (folder / "sc.toml").write_text("")
    (folder / "three.csv").write_text(
        "symbol,time,open,high,low,close,volume\n"
        + "".join(f"{symbol},{at},50,51,49,50.5,700\n" for (symbol, _), at in MISSING.items())
    )
    bars = [real_bars / "equity/usa/minute" / symbol for symbol in ("aig", "ibm")]
    sc("import", *bars, "--format", "lean")
    other = {"SC_STORE__URL": "sqlite:///other.db", "SC_LEDGER__URL": "sqlite:///other-ledger.db"}
    sc("import", "three.csv", "--label", "open", **other)
    (folder / "data" / "ledger.db").unlink()
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """Give a test the stores in its own folder; there is no ledger."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


def source(place: Path, name: str, url: str) -> None:
    """Name another store as a source."""
    with (place / "sc.toml").open("a") as file:
        file.write(f'[[sources]]\nname = "{name}"\nkind = "store"\nurl = "{url}"\n')


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder, but what can be computed again."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".sc" not in path.parts
    }


def told(document: dict[str, Any]) -> tuple[str, str, str]:
    return document["status"], document["from"], document["to"]


def test_each_evening_one_session_is_sealed(sc: Callable[..., Any], place: Path) -> None:
    for today, following in pairwise(SESSIONS):
        document = sc("roll", "--json", "--now", f"{today}{EVENING}").document
        assert told(document) == ("rolled", today, following)
        lack = {symbol: int((symbol, today) in MISSING) for symbol in ("AIG", "IBM")}
        rows = [(row["symbol"], row["session"], row["expected"]) for row in document["sealed"]]
        assert rows == [(symbol, today, 390) for symbol in lack]
        assert [row["missing"] for row in document["sealed"]] == list(lack.values())
        assert [row["present"] for row in document["sealed"]] == [390 - n for n in lack.values()]
        assert (document["filled"], document["still_missing"]) == (0, sum(lack.values()))
    before = contents(place)
    again = sc("roll", "--json", "--now", f"2013-10-11{EVENING}").document
    assert told(again) == ("up-to-date", "2013-10-14", "2013-10-14")
    assert (again["sealed"], again["run"]) == ([], None)
    assert (again["begins"], again["ends"]) == ("2013-10-14 13:30:00Z", "2013-10-14 20:00:00Z")
    not_over = sc("roll", "--json", "--now", "2013-10-14T15:59:59-04:00")
    assert told(not_over.document) == ("not-over", "2013-10-14", "2013-10-14")
    assert (not_over.code, not_over.err) == (0, "")
    assert contents(place) == before
    # The store's bars end here, and nobody lists symbols that ought to have some.
    for options in ((), ("--to", "2013-10-15")):
        ahead = sc("roll", "--json", "--now", f"2013-10-15{EVENING}", *options)
        assert (ahead.code, ahead.err) == (0, "")
        assert told(ahead.document) == ("up-to-date", "2013-10-14", "2013-10-14")
        assert ahead.document["stopped"] == "no-bars"
    assert contents(place) == before
    listed = sc("roll", "--now", f"2013-10-14{EVENING}", "--json", "--set", 'symbols=["IBM"]')
    assert [row["missing"] for row in listed.document["sealed"]] == [390]


def test_people_are_told_what_became_of_the_sessions(sc: Callable[..., Any], place: Path) -> None:
    source(place, "[b]other[/x]", "sqlite:///other.db")
    answer = sc("roll", "--to", "2013-10-09", "--now", "2013-10-11T20:00:00Z")
    assert answer.code == 0, answer.err
    lines = answer.out.splitlines()
    assert lines[0] == "Rolled from 2013-10-04 to 2013-10-09, 3 sessions of 2 symbols (run 1)."
    assert lines[1] == "Filled 2 of 2 missing minutes: 2 from [b]other[/x]."
    assert "6 of 6 symbol-sessions complete." in lines
    assert lines[-1].startswith("The current session is now 2013-10-09; it is over too: run `sc")
    answer = sc("roll", "--now", "2013-10-09T19:59:59Z")
    assert answer.out.splitlines() == [
        "Session 2013-10-09 is not over: it ends 2013-10-09 16:00:00-04:00. Nothing was sealed."
    ]
    assert sc("roll", "--quiet", "--to", "2013-10-14", "--now", "2013-10-11T12:00:00Z").out == ""
    with open_ledger("sqlite:///data/ledger.db", place) as ledger:
        assert [seal.session for seal in ledger.seals()] == list(SESSIONS[:-2])
        assert [(run.command, run.status) for run in ledger.runs()] == [("roll", "done")] * 2


@pytest.mark.parametrize("known", [True, False], ids=["with-ledger", "without"])
def test_a_dry_run_leaves_every_file_as_it_is(
    sc: Callable[..., Any], place: Path, known: bool
) -> None:
    source(place, "other", "sqlite:///other.db")
    if known:
        assert sc("roll", "--now", f"2013-10-04{EVENING}").code == 0
    first = SESSIONS[known]
    before = contents(place)
    assert ("data/ledger.db" in before) is known
    answer = sc("roll", "--dry-run", "--to", "2013-10-08", "--json")
    assert told(answer.document) == ("rolled", first, "2013-10-08")
    assert (answer.document["run"], answer.document["dry_run"]) == (None, True)
    assert answer.document["filled"] == len(answer.document["sessions"]) == 2 - known
    assert sum(row["missing"] for row in answer.document["sealed"]) == 2 - known
    assert ("the oldest stored session is taken" in answer.err) is not known
    assert contents(place) == before


@pytest.mark.parametrize("command", ["roll", "fill-gaps"])
def test_a_dry_run_needs_a_ledger_that_can_be_read_as_it_is(
    sc: Callable[..., Any], place: Path, command: str
) -> None:
    open_ledger("sqlite:///data/ledger.db", place, create=True).close()
    file = place / "data/ledger.db"
    with closing(sqlite3.connect(file)) as older, older:
        older.execute("UPDATE schema_version SET version = 2")
    older_bytes = file.read_bytes()
    for image, words in (
        (older_bytes, "has schema version 2 and must be brought to 3 first\nA call that may write"),
        (b"not a database at all" * 100, "is no SQLite database"),
    ):
        file.write_bytes(image)
        answer = sc(command, "--dry-run")
        assert (answer.code, answer.out) == (1, "")
        assert words in answer.err
        assert file.read_bytes() == image


@pytest.mark.parametrize("command", ["roll", "fill-gaps"])
def test_who_waits_for_another_says_so(place: Path, command: str) -> None:
    with open_ledger("sqlite:///data/ledger.db", place, create=True) as ledger:
        with ledger.alone(FILLING, lambda: None):
            waiting = subprocess.Popen(
                [COMMAND, command], cwd=place, stdout=PIPE, stderr=PIPE, text=True
            )
            assert waiting.stderr is not None
            said = next(line for line in waiting.stderr if "waiting" in line or "Error" in line)
        waiting.communicate(timeout=60)
    assert "another `sc roll` or `sc fill-gaps` works on this ledger" in said
    assert waiting.returncode == 0


def test_a_source_that_fails_is_heard_of_and_stops_nothing(
    sc: Callable[..., Any], place: Path
) -> None:
    source(place, "gone", "sqlite:///nowhere.db")
    answer = sc("roll", "--quiet", "--json")
    assert answer.code == 1
    (failure,) = answer.document["failures"]
    assert answer.err.splitlines() == [f"Failed: {failure}"]
    assert "nowhere.db" in failure
    assert told(answer.document) == ("rolled", "2013-10-04", "2013-10-07")
    assert [row["missing"] for row in answer.document["sealed"]] == [0, 1]


def copy(place: Path, url: str) -> None:
    """Copy the store's bars into another."""
    interval = Interval.parse("1m")
    with (
        closing(open_store("delta:data/bars", place)) as old,
        closing(open_store(url, place, create=True)) as new,
    ):
        new.write(interval, old.read(interval, None, 0, 2**60))


def damage(file: Path, at: int) -> None:
    """Flip a bit of a file."""
    with file.open("r+b") as image:
        image.seek(at)
        (byte,) = image.read(1)
        image.seek(at)
        image.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("kind", ["delta", "sqlite"])
def test_a_flipped_bit_needs_a_person(sc: Callable[..., Any], place: Path, kind: str) -> None:
    """IBM was at 181.93 on 2013-10-07 alone, before the open; but a day is verified as a whole."""
    url = "delta:data/bars"
    if kind == "sqlite":
        url = "sqlite:///bars.db"
        copy(place, url)
        file = place / "bars.db"
        spot = file.read_bytes().index(struct.pack(">d", 181.93))
    else:
        (file,) = place.glob("data/bars/interval=1m/date=2013-10-07/*.parquet")
        spot = file.stat().st_size // 3
    store = ("--set", f"store.url={url}")
    damage(file, spot)
    answer = sc("roll", "--to", "2013-10-14", *store, "--json")
    assert answer.code == 1
    assert told(answer.document) == ("error", "2013-10-04", "2013-10-07")
    assert answer.document["sessions"] == ["2013-10-04"]
    cause = answer.document["cause"]
    assert "2013-10-07" in cause
    assert f"session 2013-10-07 is in error: {cause}" in answer.err
    for words in ("sc store verify", "copy", "sc roll --clear-error"):
        assert words in answer.err
    before = contents(place)
    refused = sc("roll", *store)
    assert (refused.code, refused.out.splitlines()) == (
        1,
        ["Nothing was sealed: session 2013-10-07 is in error."],
    )
    assert cause in refused.err
    assert contents(place) == before
    damage(file, spot)
    cleared = sc("roll", "--clear-error", "--to", "2013-10-14", *store, "--json")
    assert cleared.code == 0
    assert f"the error of session 2013-10-07 is cleared: {cause}" in cleared.err
    assert told(cleared.document) == ("rolled", "2013-10-07", "2013-10-14")
    with open_ledger("sqlite:///data/ledger.db", place) as ledger:
        states = [(row.session, row.left, row.entered) for row in ledger.states()]
    seen = "2013-10-07"
    assert states == [(seen, "ENDED", "ERROR"), (seen, "ERROR", "ENDED")]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--to", "2013-10-05"), 2, "The nearest sessions: 2013-10-04, 2013-10-07."),
        (("--to", "2013-10-32"), 2, "'2013-10-32' is not a date"),
        (("--now", "yesterday"), 2, "'yesterday'"),
        (("--set", "store.url=sqlite:///none.db"), 1, "no bar store"),
        (("--symbols", "IBM"), 2, "--symbols"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    sc: Callable[..., Any], place: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    before = contents(place)
    answer = sc("roll", *arguments)
    assert (answer.code, answer.out) == (code, ""), answer.err
    assert words in answer.err
    after = contents(place)
    after.pop("data/ledger.db", None)  # it may be made before a date turns out to be none
    assert after == before


def test_an_interrupt_leaves_whole_sessions_and_says_so(place: Path) -> None:
    code = """
        import os, signal, sys
        from stream_coord.cli import main
        from stream_coord.stores.ledger import Ledger
        seal, sealed, at = Ledger.seal_session, [], int(sys.argv[1])
        def stopped(*args, **options):
            if len(sealed) == at:
                os.kill(os.getpid(), signal.SIGINT)
            sealed.append(seal(*args, **options))
        Ledger.seal_session = stopped
        sys.argv[:2] = ["sc"]
        main()
    """
    for at, said in (
        ("0", "Interrupted before session 2013-10-04 was sealed; run it again."),
        ("2", "2 sessions sealed, and the current session is now 2013-10-08; run it again"),
    ):
        command = [sys.executable, "-c", dedent(code), at, "roll", "--to", "2013-10-14"]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (130, "")
        assert said in done.stderr
    with open_ledger("sqlite:///data/ledger.db", place) as ledger:
        runs = [(run.status, run.sessions) for run in ledger.runs()]
    assert runs == [("interrupted", 2), ("interrupted", 0)]
