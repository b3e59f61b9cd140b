"""The configured sources: built-in kinds, plugins, and settings that cannot be."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from stream_coord.config import Config, config_from_tables
from stream_coord.errors import ConfigError, SourceError
from stream_coord.interval import MINUTE, Interval
from stream_coord.sources.opening import sources_of
from stream_coord.sources.protocol import BarRange
from stream_coord.stores import open_store

ONE = Interval(MINUTE)
PLUGIN = """
import polars as pl
from stream_coord.bars import empty_frame
from stream_coord.errors import ConfigError

class Vendor:
    def __init__(self, settings, root):
        self.key, self.root = settings.options["api_key"], root
    def coverage(self, interval, ranges):
        return list(reversed(ranges))
    def bars(self, interval, ranges):
        raise OSError(f"GET https://vendor/?k={self.key} failed")
    def close(self):
        pass

def broken(settings, root):
    raise ValueError(f"cannot use {settings.options['api_key']}")

def leaving(settings, root):
    raise SystemExit(3)

def strict(settings, root):
    raise ConfigError("options.depth: must be a number", "Such as 3.")

def useless(settings, root):
    return object()

number = 7
"""
KINDS = ("Vendor", "broken", "leaving", "strict", "useless", "number", "absent")
PROBE = """
import json, sys
from pathlib import Path
from stream_coord.config import config_from_tables
from stream_coord.errors import StreamCoordError
from stream_coord.interval import Interval
from stream_coord.sources.opening import sources_of
from stream_coord.sources.protocol import BarRange

source = {"name": "mine", "kind": sys.argv[1], "options": {"api_key": "${KEY}"}}
config = config_from_tables({"sources": [source]}, root=Path("/r"), environ={"KEY": "hush-hush"})
said = []
try:
    (named,) = sources_of(config)
    said.append(named.identity.partition(" #")[0])
    ranges = [BarRange("A", 0, 9), BarRange("B", 0, 9)]
    said.append(str(named.source.coverage(Interval.parse("1m"), ranges) == ranges))
    named.source.bars(Interval.parse("1m"), ranges)
except StreamCoordError as error:
    said.append(f"{type(error).__name__}: {error}")
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an installed package that offers sources."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "vendor_of_bars.py").write_text(PLUGIN)
    about = folder / "vendor_of_bars-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: vendor-of-bars\nVersion: 1.0\n")
    lines = [f"x-{kind.lower()} = vendor_of_bars:{kind}" for kind in KINDS]
    lines += ["x-gone = no_such_module_of_bars:Vendor", "store = vendor_of_bars:broken"]
    (about / "entry_points.txt").write_text(
        "[stream_coord.sources]\n" + "\n".join(lines) + "\n[other]\nx = vendor_of_bars:Vendor\n"
    )
    return folder


def probe(plugins: Path, kind: str) -> list[str]:
    """Return what a process says that can import the plugin, asked for a source of `kind`."""
    code = f"import sys; sys.path.append({str(plugins)!r})\n{PROBE}"
    done = subprocess.run(
        [sys.executable, "-c", code, kind], capture_output=True, text=True, check=True
    )
    said: list[str] = json.loads(done.stdout)
    assert "hush" not in done.stdout
    return said


def test_a_plugin_is_found_made_and_asked_and_its_secrets_are_hidden(plugins: Path) -> None:
    assert probe(plugins, "x-vendor") == [
        "mine: x-vendor",
        "True",
        "SourceError: OSError: GET https://vendor/?k=*** failed",
    ]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("x-broken", "'vendor_of_bars:broken' of the kind 'x-broken' failed: ValueError: cannot"),
        ("x-leaving", "failed: SystemExit: 3"),
        ("x-strict", "options.depth: must be a number\nSuch as 3."),
        ("x-useless", "made a object, which has no coverage, bars, close"),
        ("x-number", "failed: TypeError: 'int' object is not callable"),
        ("x-absent", "failed: AttributeError"),
        ("x-gone", "failed: ModuleNotFoundError: No module named 'no_such_module_of_bars'"),
        ("x-vendr", "there is no such kind of source (did you mean 'x-vendor'?)"),
        ("store", "this kind of source has no options"),  # a built-in kind is no plugin's
    ],
)
def test_a_plugin_that_cannot_be_used_is_named(plugins: Path, kind: str, said: str) -> None:
    (error,) = probe(plugins, kind)
    assert error.startswith("ConfigError: sources[0] (mine): ")
    assert said in error


def config(root: Path, *sources: dict[str, Any], **sections: Any) -> Config:
    tables = {"sources": [{"name": f"s{n}", **each} for n, each in enumerate(sources)], **sections}
    return config_from_tables(tables, root=root, environ={"PW": "hush"})


TABLE = {"table": "prices", "label": "open"}


def test_sources_come_in_order_with_their_identities_and_open_nothing(tmp_path: Path) -> None:
    made = sources_of(
        config(
            tmp_path,
            {"kind": "store", "url": "delta:other/bars", "compare": False},
            {"kind": "csv", "path": "archive", "options": {"label": "open"}},
            {"kind": "lean", "path": "lean", "allow_nonpositive": ["CL"]},
            {
                "kind": "table",
                "url": "postgresql+psycopg://me:${PW}@far/db",
                "options": TABLE | {"schema": "${PW}s"},
            },
            {"kind": "table", "url": "postgresql+psycopg://me:word@far/db", "options": TABLE},
        )
    )
    assert [(each.name, each.identity.partition(" #")[0]) for each in made] == [
        ("s0", "s0: store delta:other/bars"),
        ("s1", "s1: csv archive"),
        ("s2", "s2: lean lean"),
        ("s3", "s3: table postgresql+psycopg://me@far/db ${PW}s.prices"),
        ("s4", "s4: table postgresql+psycopg://me@far/db prices"),
    ]
    assert [each.compare for each in made] == [False, True, True, True, True]
    assert [set(each.allow_nonpositive) for each in made[1:3]] == [set(), {"CL"}]
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SourceError, match="no bar store at") as failed:
        made[0].source.coverage(ONE, [BarRange("A", 0, 9)])
    assert "[store]" not in str(failed.value)
    assert sources_of(config(tmp_path)) == ()


def test_relative_addresses_start_at_the_configuration(tmp_path: Path) -> None:
    import polars as pl

    bar = {"symbol": "A", "start": 60_000_000, **dict.fromkeys(("open", "high", "low"), 1.0)}
    frame = pl.DataFrame([bar | {"close": 1.0, "volume": 1.0}])
    open_store("sqlite:///other/bars.db", tmp_path, create=True).write(ONE, frame)
    frame.rename({"start": "time"}).write_csv(tmp_path / "bars.csv")
    with closing(sqlite3.connect(tmp_path / "t.db")) as connection:
        connection.execute("CREATE TABLE prices (symbol, time, open, high, low, close, volume)")
        connection.execute("INSERT INTO prices VALUES ('A', 60, 1, 1, 1, 1, 1)")
        connection.commit()
    made = sources_of(
        config(
            tmp_path,
            {"kind": "store", "url": "sqlite:///other/bars.db"},
            {
                "kind": "csv",
                "path": "bars.csv",
                "options": {"label": "open", "time_format": "epoch-us"},
            },
            {
                "kind": "table",
                "url": "sqlite:///t.db",
                "options": TABLE | {"time_format": "epoch-s"},
            },
        )
    )
    asked = [BarRange("A", 60_000_000, 120_000_000)]
    for each in made:
        assert each.source.coverage(ONE, asked) == asked
        assert each.source.bars(ONE, asked).equals(frame)
        each.source.close()


@pytest.mark.parametrize(
    ("source", "sections", "said"),
    [
        ({"kind": "stor", "url": "x"}, {}, "kind = 'stor': .* .did you mean 'store'"),
        ({"kind": "csv", "path": "x"}, {}, "options.label: is missing"),
        ({"kind": "csv", "path": "x", "options": {"label": "open", "tz": "x"}}, {}, "time zone"),
        ({"kind": "store", "url": "delta:data/bars"}, {}, "cannot be its own source"),
        ({"kind": "store", "url": "delta:data/../data/bars/"}, {}, "cannot be its own source"),
        ({"kind": "store", "url": "delta:link"}, {}, "cannot be its own source"),
        (
            {"kind": "store", "url": "postgresql://me@127.0.0.1:5432/bars"},
            {"store": {"url": "postgresql+psycopg://you:x@localhost/bars"}},
            "cannot be its own source",
        ),
        ({"kind": "store", "url": "sqlite:///data/ledger.db"}, {}, "is the ledger's SQLite file"),
        (
            {"kind": "table", "url": "sqlite:///hard.db", "options": TABLE},
            {"store": {"url": "sqlite:///bars.db"}},
            "is a bar store's SQLite file",
        ),
    ],
)
def test_what_cannot_be_a_source_is_refused_at_once(
    tmp_path: Path, source: dict[str, Any], sections: dict[str, Any], said: str
) -> None:
    (tmp_path / "data/bars").mkdir(parents=True)
    (tmp_path / "link").symlink_to("data/bars")
    (tmp_path / "bars.db").touch()
    (tmp_path / "hard.db").hardlink_to(tmp_path / "bars.db")
    with pytest.raises(ConfigError, match=rf"sources\[0\] \(s0\): .*{said}"):
        sources_of(config(tmp_path, source, **sections))


def test_a_table_in_the_file_of_another_source_that_is_a_store_is_refused(tmp_path: Path) -> None:
    store = {"kind": "store", "url": "sqlite:///a.db"}
    table = {"kind": "table", "url": "sqlite:///x/../a.db", "options": TABLE}
    (tmp_path / "a.db").touch()
    (tmp_path / "x").mkdir()
    with pytest.raises(ConfigError, match="is a bar store's SQLite file"):
        sources_of(config(tmp_path, store, table))
    # A table beside the ledger is read by the same library, and so is another database's.
    table["url"] = "sqlite:///data/ledger.db"
    assert len(sources_of(config(tmp_path, store, table))) == 2


def test_settings_of_sources_are_checked_with_all_others(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"allow_nonpositive.0. = 'a b': must be a symbol"):
        config(tmp_path, {"kind": "csv", "allow_nonpositive": ["a b"]})
    with pytest.raises(ConfigError, match="sources: are 65; at most 64"):
        config(tmp_path, *[{"kind": "csv"}] * 65)
