"""`sc replay` as a user runs it: strategies that work, fail or are interrupted, and examples."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from stream_coord.calendars import open_calendar
from stream_coord.interval import MINUTE, Interval
from stream_coord.stores import open_store
from tests.conftest import COMMAND, REPOSITORY

SPAN = ("--from", "2018-11-02", "--to", "2018-11-06")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the sample bars of three sessions in its store."""
    folder = tmp_path_factory.mktemp("demo")
    files = [f"sample/bars/2018-11-{day}.csv" for day in ("02", "05", "06")]
    stated = ("--tz", "America/New_York", "--label", "open", "--quiet")
    for arguments in (("init", "--demo", "--quiet"), ("import", *files, *stated)):
        subprocess.run([COMMAND, *arguments], cwd=folder, check=True, timeout=300)
    return folder


@pytest.fixture
def here(sc: Callable[..., Any], demo: Path) -> Callable[..., Any]:
    """Run `sc` on the sample bars, whatever the test's own folder."""
    return lambda *arguments: sc(*arguments, "--config", demo / "sc.toml")


def newest_run(here: Callable[..., Any]) -> dict[str, Any]:
    run: dict[str, Any] = here("report", "--json").document["runs"][0]
    return run


def test_without_a_date_the_session_after_the_oldest_is_replayed(here: Callable[..., Any]) -> None:
    replay = here("replay", "--json").document
    assert {row["session"] for row in replay["quality"]} == {"2018-11-05"}


def test_each_run_is_recorded_with_what_it_was_made_of(here: Callable[..., Any]) -> None:
    replay = here("replay", *SPAN, "--json").document
    run = newest_run(here)
    assert run["status"] == "done"
    assert (run["digest"], run["bars"]) == (replay["digest"], replay["bars"])
    assert "[calendar]" in run["settings"]
    assert "pandas-market-calendars" in run["calendar_version"]
    assert run["timings"].keys() == replay["timings"].keys()


def test_a_strategy_that_raises_ends_the_run_with_session_minute_and_symbol(
    here: Callable[..., Any], demo: Path
) -> None:
    (demo / "broken.py").write_text(
        "from stream_coord.strategy import Strategy\n"
        "class Broken(Strategy):\n"
        "    def on_bar(self, bar):\n"
        "        if bar.symbol == 'CVTK' and self.session.count('CVTK') == 3:\n"
        "            raise ValueError('no [bold] luck')\n"
    )
    answer = here("replay", *SPAN, "--strategy", "broken.py:Broken")
    assert answer.code == 1
    for words in ("ValueError: no [bold] luck", "line 5", "2018-11-02 13:33:00Z", "CVTK"):
        assert words in answer.err
    run = newest_run(here)
    assert run["status"] == "failed"
    assert "no [bold] luck" in run["error"]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_run_at_once_and_is_recorded(
    here: Callable[..., Any], demo: Path, sent: signal.Signals
) -> None:
    (demo / "endless.py").write_text(
        "from stream_coord.strategy import Strategy\n"
        "class Endless(Strategy):\n"
        "    def on_step(self, now):\n"
        "        print('running', flush=True)\n"
        "        while True: pass\n"
    )
    call = [str(COMMAND), "replay", *SPAN, "--strategy", "endless.py:Endless"]
    with subprocess.Popen(
        call, cwd=demo, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"running\n"
        running.send_signal(sent)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    note, *rest = said.decode().splitlines()
    assert rest == ["Interrupted."]
    assert note.startswith("Note: stopped in session 2018-11-02 at 2018-11-02 13:31:00Z, ")
    run = newest_run(here)
    assert (run["status"], f"Note: {run['error']}.") == ("interrupted", note)


def test_a_day_looks_the_same_however_far_the_run_goes_on(
    here: Callable[..., Any], demo: Path
) -> None:
    """One of the sample symbols first trades on 2018-11-12."""
    day = "sample/bars/2018-11-12.csv"
    call = [str(COMMAND), "import", day, "--tz", "America/New_York", "--label", "open", "--quiet"]
    subprocess.run(call, cwd=demo, check=True, timeout=300)
    (demo / "universe.py").write_text(
        "from stream_coord.strategy import Strategy\n"
        "class Universe(Strategy):\n"
        "    def on_session_start(self):\n"
        "        self.seen = getattr(self, 'seen', []) + [list(self.session.symbols)]\n"
        "    def result(self): return self.seen\n"
    )
    spec = ("--strategy", "universe.py:Universe", "--json")
    near = here("replay", "--from", "2018-11-06", "--to", "2018-11-06", *spec).document["result"]
    far = here("replay", "--from", "2018-11-06", "--to", "2018-11-12", *spec).document["result"]
    assert far[0] == near[0]
    assert len(far[-1]) == len(near[0]) + 1


def test_the_record_says_what_was_run(here: Callable[..., Any]) -> None:
    here("replay", *SPAN, "--symbols", "ELQN", "--symbols", "AQRV", "--quiet")
    run = newest_run(here)
    assert 'symbols = [\n    "AQRV",\n    "ELQN",\n]' in run["settings"]
    here("replay", *SPAN, "--quiet")
    assert newest_run(here)["config_digest"] != run["config_digest"]


def test_a_secret_in_an_error_is_not_shown(sc: Callable[..., Any], demo: Path) -> None:
    (demo / "leaky.py").write_text(
        "from stream_coord.strategy import Strategy\n"
        "class Leaky(Strategy):\n"
        "    def __init__(self, key): raise ValueError('bad key ' + key)\n"
    )
    own = ("--strategy", "leaky.py:Leaky", "--set", "strategy.params.key=${MY_KEY}")
    answer = sc("replay", *SPAN, *own, "--config", demo / "sc.toml", MY_KEY="hunter2secret")
    assert answer.code == 1
    assert "bad key" in answer.err
    assert "hunter2secret" not in answer.err


def test_what_a_strategy_prints_does_not_spoil_the_json(
    here: Callable[..., Any], demo: Path
) -> None:
    (demo / "chatty.py").write_text(
        "from stream_coord.strategy import Strategy\n"
        "print('imported')\n"
        "class Chatty(Strategy):\n"
        "    def on_session_end(self): print('ended')\n"
    )
    answer = here("replay", *SPAN, "--strategy", "chatty.py:Chatty", "--json")
    assert answer.document["sessions"] == 3
    assert "imported" in answer.err
    assert "ended" in answer.err


def test_an_empty_date_is_no_date(here: Callable[..., Any]) -> None:
    assert here("replay", "--session", "").code == 2


def test_a_store_can_be_reported_on_without_its_ledger(
    here: Callable[..., Any], tmp_path: Path
) -> None:
    answer = here("report", "--set", f"ledger.url=sqlite:///{tmp_path}/none.db", "--json")
    assert answer.code == 0
    assert answer.document["rows"]
    assert "there is no ledger" in answer.err


def test_a_full_disk_is_said_in_words(demo: Path) -> None:
    call = [str(COMMAND), "report", "--config", str(demo / "sc.toml")]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(call, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "cannot write the answer: No space left on device" in done.stderr


def test_quiet_prints_nothing_and_json_one_document(here: Callable[..., Any]) -> None:
    quiet = here("replay", *SPAN, "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    both = here("replay", *SPAN, "--quiet", "--json")
    assert both.document["sessions"] == 3
    assert not both.err


@pytest.mark.parametrize(
    ("strategy", "key"),
    [
        ("moving_average.py:MovingAverage", "crossings"),
        ("cross_section.py:Strongest", "AQRV"),
        ("opening_range.py:OpeningRange", "up"),
    ],
)
def test_every_example_runs(here: Callable[..., Any], strategy: str, key: str) -> None:
    replay = here("replay", *SPAN, "--strategy", REPOSITORY / "examples" / strategy, "--json")
    assert replay.code == 0, replay.err
    assert replay.document["result"][key] > 0


def test_a_days_bars_have_the_volume_of_its_regular_minutes(
    here: Callable[..., Any], demo: Path
) -> None:
    strategy = REPOSITORY / "examples" / "opening_range.py:OpeningRange"
    replay = here("replay", *SPAN, "--strategy", strategy, "--json").document
    store = open_store("delta:data/bars", demo)
    calendar = open_calendar("NYSE", cache_dir=demo / ".sc")
    first, last = (date.fromisoformat(SPAN[at]) for at in (1, 3))
    volume = 0.0
    for session in calendar.sessions(first, last):
        bars = store.read(Interval(MINUTE), None, session.open, session.close)
        volume += float(bars["volume"].sum())
    assert replay["result"]["volume"] == pytest.approx(volume, rel=1e-12)
    assert volume > 0


def test_the_strategy_in_the_readme_runs(here: Callable[..., Any], demo: Path) -> None:
    readme = (REPOSITORY / "README.md").read_text()
    code, _ = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    (demo / "breakout.py").write_text(code)
    replay = here("replay", *SPAN, "--strategy", "breakout.py:Breakout", "--json").document
    assert replay["result"]["breakouts"] > 0


def test_the_program_in_the_readme_runs(here: Callable[..., Any], demo: Path) -> None:
    """It prints the close of each regular bar of one symbol, as stored."""
    readme = (REPOSITORY / "README.md").read_text()
    _, code = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=demo, capture_output=True, text=True, check=True
    )
    stored = pl.read_parquet(demo / "data/bars/*/*/*.parquet").filter(symbol="AQRV").sort("start")
    local = pl.col("start").dt.convert_time_zone("America/New_York").dt.strftime("%H:%M")
    regular = stored.filter(local.is_between(pl.lit("09:30"), pl.lit("15:59")))["close"].to_list()
    assert [float(line.split()[0]) for line in run.stdout.splitlines()] == regular
    assert len(regular) > 3 * 300


def test_every_command_has_help_that_ends_in_an_example(sc: Callable[..., Any]) -> None:
    overview = sc("--help")
    assert overview.code == 0
    for command in ("init", "import", "replay", "report"):
        assert command in overview.out
        answer = sc(command, "--help")
        assert answer.code == 0
        assert f"Example: sc {command}" in answer.out
