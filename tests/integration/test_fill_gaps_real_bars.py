"""``sc fill-gaps`` on real minute bars; which minutes lack was counted without our code."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import COMMAND

SYMBOLS = ("aig", "ibm")
MISSING = {
    ("IBM", "2013-10-04"): "2013-10-04 16:39:00Z",
    ("AIG", "2013-10-07"): "2013-10-07 17:47:00Z",
    ("IBM", "2013-10-11"): "2013-10-11 16:46:00Z",
}
SPAN = ("--from", "2013-10-04", "--to", "2013-10-11", "--json")
COUNTS = ("minutes_missing", "filled", "no_trade", "unresolved", "still_missing", "skipped")
WHOLE = {"SC_STORE__URL": "sqlite:///whole.db", "SC_LEDGER__URL": "sqlite:///whole-ledger.db"}


def source(name: str, url: str) -> str:
    return f'[[sources]]\nname = "{name}"\nkind = "store"\nurl = "{url}"\n'


@pytest.fixture(scope="module")
def made(real_bars: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the settings' store and a copy, which lack three minutes, and one that has them."""
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
    bars = [real_bars / "equity/usa/minute" / symbol for symbol in SYMBOLS]
    sc("import", *bars, "--format", "lean")
    for url in ("sqlite:///whole.db", "sqlite:///bare.db"):
        sc("store", "copy", "delta:data/bars", url)
    sc("import", "three.csv", "--label", "open", **WHOLE)
    return folder


@pytest.fixture
def stores(made: Path, tmp_path: Path) -> None:
    """Give a test the stores in its own folder."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)


def counts(document: dict[str, Any]) -> list[int]:
    return [document[name] for name in COUNTS]


def gaps(document: dict[str, Any], state: str) -> dict[tuple[str, str], str]:
    return {
        (gap["symbol"], gap["session"]): gap["start"]
        for gap in document["gaps"]
        if gap["state"] == state and gap["minutes"] == 1
    }


def test_a_store_that_has_the_minutes_fills_them(
    sc: Callable[..., Any], stores: None, tmp_path: Path
) -> None:
    (tmp_path / "sc.toml").write_text(source("backup", "sqlite:///whole.db"))
    tried = sc("fill-gaps", *SPAN, "--dry-run")
    assert counts(tried.document) == [3, 3, 0, 0, 0, 0], tried.err
    filled = sc("fill-gaps", *SPAN)
    assert filled.code == 0, filled.err
    assert counts(filled.document) == [3, 3, 0, 0, 0, 0]
    assert filled.document["by_source"] == {"backup: store sqlite:///whole.db": 3}
    assert gaps(filled.document, "filled") == MISSING

    assert counts(sc("fill-gaps", *SPAN).document) == [0, 0, 0, 0, 0, 0]
    same = sc("store", "copy", "sqlite:///whole.db", "delta:data/bars", "--dry-run", "--json")
    assert same.document["stored"] == same.document["revised"] == 0, same.err
    (tmp_path / "sc.toml").write_text("")  # a replay asks nobody
    ours, whole = sc("replay", *SPAN), sc("replay", *SPAN, **WHOLE)
    assert ours.document["bars"] == 6 * 2 * 390, ours.err
    assert ours.document["digest"] == whole.document["digest"]


def test_a_store_that_lacks_them_too_explains_them_once(
    sc: Callable[..., Any], stores: None, tmp_path: Path
) -> None:
    (tmp_path / "sc.toml").write_text(source("backup", "sqlite:///bare.db"))
    explained = sc("fill-gaps", *SPAN)
    assert explained.code == 0, explained.err
    assert counts(explained.document) == [3, 0, 3, 0, 0, 0]
    assert gaps(explained.document, "no_trade") == MISSING

    # Nobody is asked again: a source that is no longer there would fail.
    (tmp_path / "bare.db").rename(tmp_path / "away.db")
    again = sc("fill-gaps", *SPAN)
    assert again.code == 0, again.err
    assert counts(again.document) == [3, 0, 3, 0, 0, 3]

    # A new source is asked, and only that one.
    (tmp_path / "sc.toml").write_text(
        source("backup", "sqlite:///bare.db") + source("archive", "sqlite:///whole.db")
    )
    filled = sc("fill-gaps", *SPAN)
    assert filled.code == 0, filled.err
    assert counts(filled.document) == [3, 3, 0, 0, 0, 0]
    assert gaps(filled.document, "filled") == MISSING


def test_a_source_that_is_not_there_is_told_and_given_up_in_the_end(
    sc: Callable[..., Any], stores: None, tmp_path: Path
) -> None:
    (tmp_path / "sc.toml").write_text(
        source("gone", "sqlite:///nowhere.db") + "[upkeep]\nmax_retries = 2\n"
    )
    for expected in ([3, 0, 0, 0, 3, 0], [3, 0, 0, 3, 0, 0]):
        failed = sc("fill-gaps", *SPAN)
        assert failed.code == 1
        assert "gone" in failed.err
        assert counts(failed.document) == expected
    given_up = sc("fill-gaps", *SPAN)
    assert given_up.code == 0, given_up.err
    assert counts(given_up.document) == [3, 0, 0, 3, 0, 3]
    assert gaps(given_up.document, "unresolved") == MISSING


def test_two_runs_of_missing_minutes_are_reported_as_such(
    sc: Callable[..., Any], real_bars: Path, tmp_path: Path
) -> None:
    (tmp_path / "sc.toml").write_text('[calendar]\nname = "24/7"\n')
    assert sc("import", real_bars / "crypto", "--format", "lean").code == 0
    day = ("--from", "2018-04-04", "--to", "2018-04-04", "--json")
    found = sc("fill-gaps", *day)
    assert found.code == 0, found.err
    assert counts(found.document) == [433, 0, 0, 0, 433, 0]
    assert sorted(gap["minutes"] for gap in found.document["gaps"]) == [1, 432]
    assert "no source" in found.err
