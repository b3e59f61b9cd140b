"""The example of an HTTP source as an installed package finds it: by its entry point."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stream_coord.clock import from_micros
from stream_coord.config import Config, load_config
from stream_coord.errors import ConfigError, SourceError
from stream_coord.interval import MINUTE, Interval
from stream_coord.sources.opening import sources_of
from stream_coord.sources.protocol import BarRange

PLUGIN = Path(__file__).parents[2] / "examples" / "http_source"
KEY = "k3y-of-a-customer"
ONE_MINUTE = Interval(MINUTE)
OPEN = 1_380_893_400_000_000  # 2013-10-04 13:30 UTC

BARS = """\
symbol,time,open,high,low,close,volume
IBM,2013-10-04T13:30:00Z,184.17,184.25,184.1,184.2,31200
IBM,2013-10-04T13:32:00Z,184.2,184.3,184.2,184.25,500
GE,2013-10-04T13:30:00Z,24,24.5,23.75,24.25,1000
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return a folder that holds what pip would install, as the package's own file says."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    folder = tmp_path / "site"
    shutil.copytree(PLUGIN / "http_bars", folder / "http_bars")
    info = folder / f"stream_coord_http_bars-{project['version']}.dist-info"
    info.mkdir()
    name = f"Metadata-Version: 2.4\nName: {project['name']}\nVersion: {project['version']}\n"
    (info / "METADATA").write_text(name)
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{kind} = {value}" for kind, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return folder


@dataclass
class Vendor:
    """The example's own vendor in a process of its own."""

    process: subprocess.Popen[str]
    url: str
    log: Path

    @property
    def requests(self) -> list[str]:
        return [line.split('"')[1] for line in self.log.read_text().splitlines()]


@pytest.fixture
def vendor(tmp_path: Path) -> Iterator[Callable[[str], Vendor]]:
    """Return a function that starts a vendor of the bars of a CSV text."""
    running: list[Vendor] = []

    def start(bars: str) -> Vendor:
        path, log = tmp_path / "vendor.csv", tmp_path / "vendor.log"
        path.write_text(bars)
        command: list[str | Path] = [
            sys.executable,
            PLUGIN / "made_up_vendor.py",
            path,
            "--key",
            KEY,
            "--port",
            "0",
        ]
        with log.open("w") as errors:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout is not None
        running.append(Vendor(process, process.stdout.readline().strip(), log))
        return running[-1]

    yield start
    for each in running:
        each.process.terminate()
        each.process.communicate()


def settings(folder: Path, url: str, kind: str = "http-bars") -> Path:
    """Write settings with the vendor as the only source."""
    path = folder / "sc.toml"
    path.write_text(
        f'[[sources]]\nname = "vendor"\nkind = "{kind}"\nurl = "{url}"\n'
        'options = { api_key = "${BARS_API_KEY}", from = 2013-10-01, requests_per_second = 900 }\n'
    )
    return path


def config_of(path: Path) -> Config:
    return load_config(path, environ={"BARS_API_KEY": KEY})


def test_the_kind_is_found_and_answers(
    site: Path,
    tmp_path: Path,
    vendor: Callable[[str], Vendor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(site)
    running = vendor(BARS)
    config = config_of(settings(tmp_path, running.url))
    (named,) = sources_of(config)
    assert re.fullmatch(f"vendor: http-bars {running.url} #[0-9a-f]{{6}}", named.identity)
    assert KEY not in config.dump() + repr(named) + named.identity

    asked = [BarRange(symbol, OPEN, OPEN + 3 * MINUTE) for symbol in ("GE", "IBM", "XYZ")]
    covered = named.source.coverage(ONE_MINUTE, asked)
    assert list(covered) == asked[:2]
    found = named.source.bars(ONE_MINUTE, covered).sort("symbol", "start")
    named.source.close()
    assert found.rows() == [
        ("GE", OPEN, 24, 24.5, 23.75, 24.25, 1000),
        ("IBM", OPEN, 184.17, 184.25, 184.1, 184.2, 31200),
        ("IBM", OPEN + 2 * MINUTE, 184.2, 184.3, 184.2, 184.25, 500),
    ]
    assert [line.partition("?")[0] for line in running.requests] == [
        "GET /v1/symbols",
        "GET /v1/bars",
    ]


def test_a_wrong_key_fails_and_is_not_told(
    site: Path,
    tmp_path: Path,
    vendor: Callable[[str], Vendor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(site)
    running = vendor(BARS)
    path = settings(tmp_path, running.url)
    (named,) = sources_of(load_config(path, environ={"BARS_API_KEY": "stolen-key"}))
    with pytest.raises(SourceError, match="answered 401") as failed:
        named.source.coverage(ONE_MINUTE, [BarRange("IBM", OPEN, OPEN + MINUTE)])
    named.source.close()
    assert "stolen-key" not in str(failed.value)
    assert len(running.requests) == 1


def test_settings_that_are_wrong_name_the_source(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(site)
    with pytest.raises(ConfigError, match=r"sources\[0\] \(vendor\): .*url"):
        sources_of(config_of(settings(tmp_path, "http://bars.example")))
    with pytest.raises(ConfigError, match="did you mean 'http-bars'"):
        sources_of(config_of(settings(tmp_path, "https://bars.example", kind="http-bar")))


def test_the_readmes_settings_are_right(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(site)
    block = (PLUGIN / "README.md").read_text().split("```toml\n")[1].split("```")[0]
    (tmp_path / "sc.toml").write_text(block)
    (named,) = sources_of(config_of(tmp_path / "sc.toml"))
    assert named.identity.startswith("vendor: http-bars https://api.bars.example/v1 #")


MINUTES = [OPEN + n * MINUTE for n in range(390)]
NOT_STORED = {0, 17, 18, 200, 389}
NOT_AT_VENDOR = {18, 389}
HEADER = "symbol,time,open,high,low,close,volume\n"


def session_without(minutes: set[int]) -> str:
    """Return a session of IBM as CSV, some minutes left out."""
    return HEADER + "".join(
        f"IBM,{from_micros(start):%Y-%m-%dT%H:%M:%SZ},{10 + n},{11 + n},{9 + n},{10.5 + n},{n}\n"
        for n, start in enumerate(MINUTES)
        if n not in minutes
    )


@pytest.fixture
def store(
    sc: Callable[..., Any], tmp_path: Path, site: Path, vendor: Callable[[str], Vendor]
) -> Vendor:
    """Make a store with holes, whose only source is a vendor with fewer holes."""
    running = vendor(session_without(NOT_AT_VENDOR))
    settings(tmp_path, running.url)
    (tmp_path / "stored.csv").write_text(session_without(NOT_STORED))
    environ = {"BARS_API_KEY": KEY, "PYTHONPATH": str(site)}
    answer = sc("import", "stored.csv", "--label", "open", **environ)
    assert answer.code == 0, answer.err
    return running


def kept_in(folder: Path, secret: str) -> list[Path]:
    """Return the files that hold a secret."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return [path for path in files if secret.encode() in path.read_bytes()]


def test_fill_gaps_asks_once_and_remembers(
    sc: Callable[..., Any], store: Vendor, site: Path, tmp_path: Path
) -> None:
    environ = {"BARS_API_KEY": KEY, "PYTHONPATH": str(site)}
    filled = sc("fill-gaps", "--json", **environ)
    assert filled.code == 0, filled.err
    document = filled.document
    counts = ("minutes_missing", "filled", "no_trade", "unresolved")
    assert [document[name] for name in counts] == [5, 3, 2, 0]
    assert list(document["by_source"].values()) == [3]
    (identity,) = document["by_source"]
    assert re.fullmatch(f"vendor: http-bars {store.url} #[0-9a-f]{{6}}", identity)
    assert [line.partition("?")[0] for line in store.requests] == [
        "GET /v1/symbols",
        "GET /v1/bars",
    ]

    again = sc("fill-gaps", "--json", **environ)
    assert again.code == 0, again.err
    assert [again.document[name] for name in counts] == [2, 0, 2, 0]
    assert len(store.requests) == 2
    assert not any(KEY in text for text in (filled.out, filled.err, again.out, again.err))
    assert not kept_in(tmp_path, KEY)


def test_fill_gaps_fails_with_a_wrong_key_and_does_not_tell_it(
    sc: Callable[..., Any], store: Vendor, site: Path, tmp_path: Path
) -> None:
    failed = sc("fill-gaps", "--json", BARS_API_KEY="stolen-key", PYTHONPATH=str(site))
    assert failed.code == 1
    assert failed.document["filled"] == 0
    assert "answered 401" in failed.err
    assert "stolen-key" not in failed.out + failed.err
    assert not kept_in(tmp_path, "stolen-key")

    environ = {"BARS_API_KEY": KEY, "PYTHONPATH": str(site)}
    assert sc("fill-gaps", "--json", **environ).document["filled"] == 3


def stored_files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in (folder / "data/bars").rglob("*") if path.is_file()}


def test_a_replay_is_filled_in_memory_with_one_question(
    sc: Callable[..., Any], store: Vendor, site: Path, tmp_path: Path
) -> None:
    """Checked once an hour: each of the three fills is an update, and rebuilds a 5m and a 15m."""
    before = stored_files(tmp_path)
    hourly = ("--session", "2013-10-04", "--set", "upkeep.check_interval_seconds=3600", "--json")
    answer = sc("replay", *hourly, BARS_API_KEY=KEY, PYTHONPATH=str(site))
    assert answer.code == 0, answer.err
    replay = answer.document
    (row,) = replay["quality"]
    counts = ("expected", "present", "filled", "no_trade", "missing")
    assert [row[name] for name in counts] == [390, 388, 3, 2, 0]
    assert (replay["bars"], replay["updates"]) == (385, 3 + 3 * 2)
    assert len(store.requests) == 2
    assert stored_files(tmp_path) == before


def test_a_replay_goes_on_without_a_vendor(
    sc: Callable[..., Any], store: Vendor, site: Path
) -> None:
    environ = {"BARS_API_KEY": "stolen-key", "PYTHONPATH": str(site)}
    answer = sc("replay", "--session", "2013-10-04", "--json", **environ)
    assert answer.code == 0, answer.err
    (row,) = answer.document["quality"]
    assert (row["present"], row["filled"], row["no_trade"]) == (385, 0, 0)
    assert "answered 401" in answer.out + answer.err
    assert "stolen-key" not in answer.out + answer.err
