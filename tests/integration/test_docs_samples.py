"""What README and docs show is what comes out: sessions, history, splits, a live feed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import enumerate as threads
from typing import Any

import pytest

from stream_coord.config import load_config
from stream_coord.config.settings import HistorySettings, SessionSettings
from tests.conftest import COMMAND, REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
HISTORY = (REPOSITORY / "docs/history.md").read_text(encoding="utf-8")
SESSIONS = (REPOSITORY / "docs/sessions.md").read_text(encoding="utf-8")
GUARD_SECONDS = 300

Run = Callable[..., Any]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def samples(text: str) -> dict[str, str]:
    """Return what each command of the text is shown to print."""
    shown = "".join(blocks(text, "console")).removeprefix("$ ").split("\n$ ")
    return {command: output for command, _, output in (each.partition("\n") for each in shown)}


def printed(sample: str, output: str) -> bool:
    """Tell whether all lines of a sample were printed in that order; "..." is any lines."""
    rest = iter(line.rstrip() for line in output.splitlines())
    wanted = (line for line in sample.splitlines() if line != "...")
    return all(any(line == other for other in rest) for line in wanted)


def sc_in(folder: Path, *calls: list[str | Path]) -> Path:
    for call in calls:
        command = [COMMAND, *call, "--quiet"]
        subprocess.run(command, cwd=folder, check=True, timeout=GUARD_SECONDS)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the sample bars' store."""
    stated = ["--tz", "America/New_York", "--label", "open"]
    return sc_in(
        tmp_path_factory.mktemp("demo"),
        ["init", "--demo"],
        ["import", "sample/bars", *stated],
        ["import", "sample/corrections", *stated],
    )


@pytest.fixture
def demo(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path, dirs_exist_ok=True)


@pytest.fixture
def apple(real_bars: Path, tmp_path: Path) -> Path:
    bars = real_bars / "equity/usa/minute/aapl"
    folder = sc_in(tmp_path, ["init"], ["import", bars, "--format", "lean"])
    (folder / "mornings.py").write_text(blocks(HISTORY, "python")[0])
    return folder


@pytest.mark.parametrize(
    ("text", "command"),
    [
        (README, "sc replay --from 2018-11-19 --to 2018-11-23"),
        (HISTORY, "sc replay --session 2018-11-05"),
        (SESSIONS, "sc replay --session 2018-11-20 --symbols RVLT"),
    ],
)
def test_replays_print_what_is_shown(sc: Run, demo: Path, text: str, command: str) -> None:
    answer = sc(*command.split()[1:])
    sample = samples(text)[command]
    assert printed(sample, answer.err + answer.out), answer.err + answer.out
    assert not printed(sample.replace("2018", "2019"), answer.err + answer.out)


def test_states_are_as_shown(sc: Run, demo: Path) -> None:
    (sample,) = blocks(SESSIONS, "json")
    replay = sc("replay", "--session", "2018-11-20", "--symbols", "RVLT", "--json").document
    assert json.loads(sample) in replay["states"]


def test_splits_are_told_and_taken_as_shown(sc: Run, apple: Path) -> None:
    shown = samples(HISTORY)
    (apple / "actions.csv").write_text(shown["cat actions.csv"])
    for command in (
        "sc import actions.csv --actions",
        "sc replay --from 2014-06-05 --to 2014-06-09 --strategy mornings.py:Mornings",
        "sc replay --from 2014-06-05 --to 2014-06-09 --strategy mornings.py:Mornings "
        "--set history.adjust=none",
    ):
        answer = sc(*command.split()[1:])
        assert answer.code == 0, answer.err
        assert shown[command].count("\n") >= 4
        assert printed(shown[command], answer.out), answer.out


def test_the_live_feed_prints_what_is_shown(demo: Path) -> None:
    (sample,) = (text for command, text in samples(SESSIONS).items() if "live_feed" in command)
    done = subprocess.run(
        [sys.executable, REPOSITORY / "examples/live_feed.py", "sc.toml"],
        cwd=demo,
        capture_output=True,
        text=True,
        check=False,
        timeout=GUARD_SECONDS,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.rstrip() == sample.rstrip()


def test_settings_are_shown_at_their_defaults(tmp_path: Path) -> None:
    text = "\n".join(blocks(HISTORY, "toml") + blocks(SESSIONS, "toml"))
    (tmp_path / "sc.toml").write_text(text)
    settings = load_config(tmp_path / "sc.toml", environ={}).settings
    assert (settings.history, settings.session) == (HistorySettings(), SessionSettings())
    for name in (*HistorySettings.__struct_fields__, *SessionSettings.__struct_fields__):
        assert f"{name} = " in text


def test_the_live_session_of_the_docs_runs(demo: Path) -> None:
    """With a feed of one bar, whatever session it is on the wall clock."""
    (code,) = blocks(SESSIONS, "python")
    config = load_config(demo / "sc.toml", sets=['symbols = ["AQRV"]'])
    known: dict[str, Any] = {"config": config}

    class Feed:
        def __iter__(self) -> Any:
            assert "sc-monitor" in {thread.name for thread in threads()}
            yield "AQRV", known["live"].data.session.open, (5.0, 6.0, 4.0, 5.5, 100.0)

    known["feed"] = Feed()
    exec(code, known)  # noqa: S102 -- it is our own
    assert "sc-monitor" not in {thread.name for thread in threads()}
    assert known["live"].monitor.cause is None
    assert len(known["live"].data.sessions) == 6
