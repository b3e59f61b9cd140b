"""`sc store` through the installed command: what it says, its exit codes, and what stays whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from textwrap import dedent
from typing import Any

import polars as pl
import pytest

from stream_coord.interval import Interval
from stream_coord.stores import open_store

MINUTE = Interval.parse("1m")
TARGETS = ["delta:copy", "sqlite:///copy"]
FRIDAY, MONDAY = "2018-11-23", "2018-11-26"
SCHEMA = {"symbol": pl.String, "start": pl.Int64} | dict.fromkeys(
    ("open", "high", "low", "close", "volume"), pl.Float64
)


def bars(symbols: str, day: str, minutes: int, price: float = 1.0) -> pl.DataFrame:
    ten = int(datetime.fromisoformat(f"{day}T10:00Z").timestamp()) * 1_000_000
    keys = [(symbol, ten + minute * 60_000_000) for symbol in symbols for minute in range(minutes)]
    return pl.DataFrame([(*key, *[price] * 5) for key in keys], schema=SCHEMA, orient="row")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Return a folder with settings and a store of two dates, of five files and of one."""
    (tmp_path / "sc.toml").write_text('[store]\nurl = "delta:data/bars"\n')
    store = open_store("delta:data/bars", tmp_path, create=True)
    for number, symbol in enumerate("FEDCB"):
        store.write(MINUTE, bars(symbol, FRIDAY, 2 ** (5 - number)))
    store.write(MINUTE, bars("AB", MONDAY, 3))
    return tmp_path


def bar_files(place: Path, name: str = "data/bars") -> list[Path]:
    return sorted((place / name).glob("interval=*/*/*.parquet"))


def test_info_is_about_the_settings_store_or_a_named_one(
    sc: Callable[..., Any], place: Path
) -> None:
    document = sc("store", "info", "--json").document
    assert document["url"] == f"delta:{place}/data/bars"
    assert (document["kind"], document["files"]) == ("delta", 6)
    assert document["bytes"] > 1000
    assert document["intervals"] == [
        {
            "interval": "1m",
            "symbols": 6,
            "dates": 2,
            "first": "2018-11-23",
            "last": "2018-11-26",
            "rows": 68,
        }
    ]
    (place / "sc.toml").unlink()
    assert sc("store", "info", "delta:data/bars", "--json").document == document
    assert sc("store", "info", "delta:data/${NAME}", "--json", NAME="bars").document == document
    shown = sc("store", "info", "delta:data/bars").out
    assert "Delta Lake" in shown
    assert "2018-11-26" in shown
    assert "`sc store compact` would make 2 files" in shown


def test_verify_finds_what_is_damaged_and_tells_what_to_do(
    sc: Callable[..., Any], place: Path
) -> None:
    sound = sc("store", "verify", "--json")
    assert (sound.code, sound.document) == (0, {"symbol_days": 7, "rows": 68, "damaged": []})
    path = next(p for p in bar_files(place) if "F" in pl.read_parquet(p)["symbol"])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    (place / "sc.toml").unlink()
    answer = sc("store", "verify", "delta:data/bars", "--json")
    assert answer.code == 1
    damaged = answer.document["damaged"]
    assert [(d["interval"], d["date"]) for d in damaged] == [("1m", "2018-11-23")]
    assert (answer.document["symbol_days"], answer.document["rows"]) == (2, 6)
    shown = sc("store", "verify", "delta:data/bars")
    assert shown.code == 1
    assert "6 bars of 2 symbol-days are sound. 1 damaged" in shown.out
    assert "Restore the store from a backup" in shown.out
    assert "Failed: 1m 2018-11-23" in shown.err
    assert path.name in shown.err


def test_damaged_bars_are_named_one_by_one(sc: Callable[..., Any], place: Path) -> None:
    """The footer is whole; the pages in front of it are not."""
    path = next(p for p in bar_files(place) if "F" in pl.read_parquet(p)["symbol"])
    content = path.read_bytes()
    footer = int.from_bytes(content[-8:-4], "little") + 8
    path.write_bytes(content[:4] + bytes(len(content) - 4 - footer) + content[-footer:])
    answer = sc("store", "verify", "--json")
    assert answer.code == 1
    assert [d["symbol"] for d in answer.document["damaged"]] == ["F"]
    assert (answer.document["symbol_days"], answer.document["rows"]) == (6, 36)
    copied = sc("store", "copy", "delta:data/bars", "delta:copy", "--json")
    assert copied.code == 1
    assert (copied.document["copied"], copied.document["stored"]) == (6, 36)
    assert "1m 2018-11-23 F" in copied.err
    assert "left out" in copied.err
    assert sc("store", "verify", "delta:copy").code == 0


def test_compact_merges_files_and_keeps_bars_and_data_versions(
    sc: Callable[..., Any], place: Path
) -> None:
    store = open_store("delta:data/bars", place)
    versions = store.versions(MINUTE, date(2018, 11, 23), date(2018, 11, 26))
    promised = sc("store", "compact", "--dry-run", "--json").document
    assert (promised["files_before"], promised["files_after"]) == (6, 2)
    assert len(bar_files(place)) == 6
    done = sc("store", "compact", "--json").document
    assert (done["files_before"], done["files_after"], done["deleted_files"]) == (6, 2, 0)
    assert store.versions(MINUTE, date(2018, 11, 23), date(2018, 11, 26)).equals(versions)
    assert versions.height == 7
    assert "5 replaced files" in sc("store", "compact").out
    assert sc("store", "verify", "--json").document["rows"] == 68


def test_compact_deletes_old_leftovers_only(sc: Callable[..., Any], place: Path) -> None:
    leftover = bar_files(place)[0].with_name("0123456789abcdef" * 2 + ".parquet")
    leftover.write_bytes(b"x" * 10)
    assert sc("store", "compact", "--retain-hours", "2", "--json").document["deleted_files"] == 0
    old = time.time() - 3 * 3_600
    os.utime(leftover, (old, old))
    answer = sc("store", "compact", "--retain-hours", "2")
    assert "Deleted 1 file (10 bytes)" in answer.out
    assert not leftover.exists()


@pytest.mark.parametrize("target", TARGETS)
def test_a_copy_has_the_same_bars_and_a_second_one_copies_nothing(
    sc: Callable[..., Any], place: Path, target: str
) -> None:
    (place / "sc.toml").unlink()
    ours = ("store", "copy", "delta:data/bars", target, "--json")
    promised = sc(*ours, "--dry-run").document
    assert (promised["dry_run"], promised["symbol_days"], promised["copied"]) == (True, 7, 7)
    assert not (place / "copy").exists()
    done = sc(*ours).document
    seconds = done.pop("seconds")
    assert seconds > 0
    assert done == {
        "dry_run": False,
        "symbol_days": 7,
        "copied": 7,
        "skipped": 0,
        "rows": 68,
        "stored": 68,
        "duplicates": 0,
        "revised": 0,
        "differing": [],
        "damaged": [],
    }
    again = sc(*ours).document
    assert (again["copied"], again["skipped"], again["rows"]) == (0, 7, 0)
    assert sc("store", "verify", target, "--json").document["rows"] == 68
    back = sc("store", "copy", target, "delta:data/bars", "--json").document
    assert (back["symbol_days"], back["skipped"]) == (7, 7)
    assert "all 7 symbol-days are equal" in sc("store", "copy", "delta:data/bars", target).out


def test_a_copy_reports_what_it_replaced_and_what_still_differs(
    sc: Callable[..., Any], place: Path
) -> None:
    part = ("--symbols", "A,B", "--from", "2018-11-26")
    first = sc("store", "copy", "delta:data/bars", "delta:copy", *part, "--json").document
    assert (first["symbol_days"], first["stored"]) == (2, 6)
    store = open_store("delta:data/bars", place)
    store.write(MINUTE, pl.concat([bars("A", MONDAY, 2, price=2.0), bars("B", MONDAY, 5)]))
    answer = sc("store", "copy", "delta:copy", "delta:data/bars", "--json")
    assert answer.code == 1
    document = answer.document
    fates = [document[name] for name in ("rows", "stored", "duplicates", "revised")]
    assert fates == [6, 0, 1 + 3, 2]
    assert document["differing"] == [{"interval": "1m", "date": "2018-11-26", "symbol": "B"}]
    assert "1m 2018-11-26 B differs: the target holds other bars there" in answer.err


@pytest.mark.parametrize(("stop", "left"), [("SIGINT", 130), ("SIGKILL", -signal.SIGKILL)])
def test_a_stopped_copy_is_whole_and_goes_on(
    sc: Callable[..., Any], place: Path, stop: str, left: int
) -> None:
    code = """
        import os, signal, sys
        from stream_coord import copying
        from stream_coord.cli import main
        from stream_coord.stores.delta import DeltaStore
        stop = getattr(signal, sys.argv[1])
        copying.SLICE_ROWS = 1
        write, writes = DeltaStore.write, []
        def stopped(*args, **options):
            if len(writes) == 1:
                os.kill(os.getpid(), stop)
            writes.append(write(*args, **options))
            return writes[-1]
        DeltaStore.write = stopped
        sys.argv[:2] = ["sc"]
        main()
    """
    copy = ("store", "copy", "delta:data/bars", "delta:copy")
    command = [sys.executable, "-c", dedent(code), stop, *copy]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == left, done.stderr
    assert ("run it again to go on" in done.stderr) is (stop == "SIGINT")
    assert sc("store", "verify", "delta:copy", "--json").document["symbol_days"] == 5
    rest = sc(*copy, "--json").document
    assert (rest["symbol_days"], rest["copied"], rest["skipped"]) == (7, 2, 5)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["info", "data/bars"], 2, "did you mean 'delta:data/bars'?"),
        (["info", "delta:data/bars", "--config", "sc.toml"], 2, "URL does not go with --config"),
        (["verify", "delta:sc.toml"], 1, "is not a directory"),
        (["compact", "--retain-hours", "0"], 2, "Give 1 to 720"),
        (["copy", "delta:data/bars", "delta:data/../data/bars"], 2, "onto itself"),
        (["copy", "delta:nowhere", "delta:new"], 1, "there is no bar store at"),
        (["copy", "delta:data/bars", "delta:new", "--symbols", "../x"], 2, "is not a symbol"),
        (["info", "postgresql+psycopg://u:hush@localhost:1/x"], 1, "localhost"),
        (["info", "postgres://u:hush@localhost/x"], 2, "no store is of the kind"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_calls_are_told_in_words(
    sc: Callable[..., Any], place: Path, arguments: list[str], code: int, words: str
) -> None:
    answer = sc("store", *arguments)
    assert answer.code == code, answer.err
    assert words in answer.err
    assert "hush" not in answer.err + answer.out
    assert not (place / "new").exists()


def test_without_settings_and_url_it_says_so(sc: Callable[..., Any]) -> None:
    answer = sc("store", "info")
    assert answer.code == 2
    assert "there is no sc.toml" in answer.err
