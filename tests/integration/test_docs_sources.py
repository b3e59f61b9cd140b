"""docs/sources.md is true: its settings load, its plugin works."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import polars as pl
import pytest

from stream_coord.bars import FIELDS
from stream_coord.config import load_config
from stream_coord.errors import SourceError
from stream_coord.interval import MINUTE, Interval
from stream_coord.sources.opening import BUILT_IN, sources_of
from stream_coord.sources.protocol import BarRange, NamedSource

REPOSITORY = Path(__file__).parents[2]
TEXT = (REPOSITORY / "docs" / "sources.md").read_text(encoding="utf-8")
ENVIRON = {"PASSWORD": "hush-hush", "BARS_API_KEY": "k3y-of-a-customer"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)


PROJECT, *_ = [block for block in blocks("toml") if block.startswith("# pyproject.toml")]
SETTINGS = [block for block in blocks("toml") if block != PROJECT]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the document's plugin and the vendor's, each as its own pyproject.toml says."""
    site = tmp_path / "site"
    vendor = REPOSITORY / "examples" / "http_source"
    for text in (PROJECT, (vendor / "pyproject.toml").read_text(encoding="utf-8")):
        project = tomllib.loads(text)["project"]
        info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        info.mkdir(parents=True)
        ((group, entries),) = project["entry-points"].items()
        lines = [f"[{group}]", *(f"{kind} = {value}" for kind, value in entries.items())]
        (info / "entry_points.txt").write_text("\n".join(lines))
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.4\nName: {project['name']}\nVersion: {project['version']}\n"
        )
    (code,) = blocks("python")
    (site / "arrow_source.py").write_text(code)
    monkeypatch.syspath_prepend(vendor)
    monkeypatch.syspath_prepend(site)


def sources_in(settings: str, folder: Path) -> tuple[NamedSource, ...]:
    (folder / "sc.toml").write_text(settings)
    return sources_of(load_config(folder / "sc.toml", environ=ENVIRON))


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda text: text.split("\n")[2])
def test_settings_load(installed: None, tmp_path: Path, settings: str) -> None:
    named = sources_in(settings, tmp_path)
    assert len(named) == settings.count("[[sources]]")
    for source in named:
        assert not any(secret in source.identity for secret in ENVIRON.values())


def test_every_built_in_kind_has_its_example() -> None:
    shown = {
        source["kind"] for text in SETTINGS for source in tomllib.loads(text).get("sources", [])
    }
    assert shown == {*BUILT_IN, "arrow", "http-bars"}


def test_the_plugin_works(installed: None, tmp_path: Path) -> None:
    """A hole between two bars is covered, what is around them is not."""
    (settings,) = [text for text in SETTINGS if '"arrow"' in text]
    (named,) = sources_in(settings, tmp_path)
    asked = [BarRange("IBM", 0, 9 * MINUTE), BarRange("XYZ", 0, MINUTE)]
    with pytest.raises(SourceError, match=r"bars\.arrow cannot be read"):
        named.source.coverage(Interval(MINUTE), asked)

    starts = [2 * MINUTE, 5 * MINUTE]
    prices = {name: [1.0, 2.0] for name in FIELDS}
    (tmp_path / "research").mkdir()
    bars = pl.DataFrame({"symbol": "IBM", "start": starts, **prices})
    bars.write_ipc(tmp_path / "research" / "bars.arrow")
    covered = named.source.coverage(Interval(MINUTE), asked)
    assert list(covered) == [BarRange("IBM", 2 * MINUTE, 6 * MINUTE)]
    assert named.source.bars(Interval(MINUTE), covered)["start"].to_list() == starts
    named.source.close()
