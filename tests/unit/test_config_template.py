"""The commented settings file that `sc init` writes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from msgspec import Struct, structs

from stream_coord.config import config_from_tables
from stream_coord.config.settings import NOT_BUILT, Settings, SourceSettings
from stream_coord.config.template import template


def load(text: str) -> Settings:
    return config_from_tables(tomllib.loads(text), root=Path("/r"), environ={}).settings


def uncommented(text: str) -> str:
    return re.sub(r"^#(?=\S)", "", text, flags=re.MULTILINE)


def test_it_loads_as_it_is_and_means_the_defaults() -> None:
    config = config_from_tables(tomllib.loads(template()), root=Path("/r"), environ={})
    assert config.settings == Settings()
    assert config.notes == ()


def test_with_everything_uncommented_it_means_the_defaults_too() -> None:
    tables = tomllib.loads(uncommented(template()))
    assert sum(len(table) for table in tables.values() if isinstance(table, dict)) == 28
    assert load(uncommented(template())) == Settings()


def test_every_setting_is_in_it_with_its_documentation() -> None:
    lines = template().splitlines()

    def check(cls: type[Struct]) -> None:
        for info in structs.fields(cls):
            if isinstance(info.type, type) and issubclass(info.type, Struct):
                assert f"[{info.encode_name}]" in lines
                check(info.type)
            elif info.name != "sources":
                at = [i for i, x in enumerate(lines) if re.match(rf"# ?{info.encode_name} = ", x)]
                assert at, info.encode_name
                assert all(re.match("# ", lines[i - 1]) for i in at), info.encode_name

    check(Settings)
    check(SourceSettings)
    assert "# [[sources]]" in lines


def test_what_is_not_built_is_marked() -> None:
    text = template()
    marked = re.findall(r"\(not in this\s(?:# )?version yet\)\n#? ?\[+(\w+)\]", text)
    assert sorted(marked) == sorted(NOT_BUILT)


def test_chosen_values_are_written_uncommented() -> None:
    values = {"calendar.name": "24/7", "store.url": 'a"b', "upkeep.enabled": False}
    text = template(["SPY", "BRK.B"], values=values)
    assert 'symbols = ["SPY", "BRK.B"]\n' in text
    settings = load(text)
    assert settings.symbols == ["SPY", "BRK.B"]
    assert (settings.calendar.name, settings.store.url) == ("24/7", 'a"b')
    assert settings.upkeep.enabled is False


def test_a_value_for_no_setting_is_refused() -> None:
    with pytest.raises(ValueError, match=r"calendar\.nam"):
        template(values={"calendar.nam": "NYSE"})


def test_its_example_of_a_source_loads() -> None:
    text = template()
    lines = text[text.index("# [[sources]]") :].splitlines()
    example = [line[2:] for line in lines if re.match(r"# (\[\[|(name|kind|url|options) =)", line)]
    assert len(load("\n".join(example)).sources) == 1


def test_its_lines_are_not_wider_than_a_terminal() -> None:
    assert max(map(len, template().splitlines())) <= 100
