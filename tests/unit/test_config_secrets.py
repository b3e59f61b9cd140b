"""Secrets are used and never shown."""

from __future__ import annotations

import copy
from pathlib import Path

import msgspec
import pytest

from stream_coord.config import Config, config_from_tables
from stream_coord.config.masking import MaskedText, expand, mask_secrets, mask_urls
from stream_coord.errors import ConfigError

HUSH = "hunter2-%40-longer"


def config(
    tables: dict[str, object],
    environ: dict[str, str] | None = None,
    sets: tuple[str, ...] = (),
) -> Config:
    return config_from_tables(tables, root=Path("/r"), environ=environ or {}, sets=sets)


def seen(made: Config) -> str:
    """Everything that a config shows of itself."""
    parts = [repr(made), repr(made.settings), str(made.settings), made.dump(), *made.notes]
    return "\n".join(parts)


def test_a_reference_is_used_filled_in_and_shown_as_written() -> None:
    url = "postgresql://sc:${DB_PASSWORD}@db/bars"
    made = config({"ledger": {"url": url}}, {"DB_PASSWORD": HUSH})
    assert made.settings.ledger.url == f"postgresql://sc:{HUSH}@db/bars"
    assert HUSH not in seen(made)
    assert f'url = "{url}"' in made.dump()
    again = config(msgspec.toml.decode(made.dump()), {"DB_PASSWORD": "other"})
    assert again.settings.ledger.url == "postgresql://sc:other@db/bars"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"postgresql://sc:{HUSH}@db/bars", "postgresql://sc:***@db/bars"),
        (f"postgresql://sc:a/{HUSH}@b@db/bars", "postgresql://sc:***@db/bars"),
        (f"postgresql://:{HUSH} x@db", "postgresql://:***@db"),
        (f"delta:s3://key:{HUSH}@bucket/x", "delta:s3://key:***@bucket/x"),
        (
            f"postgresql://db/x?user=sc&password={HUSH}",
            "postgresql://db/x?user=sc&password=***",
        ),
        (
            f"s3://b/x?AWS_SECRET_ACCESS_KEY={HUSH}&y=1",
            "s3://b/x?AWS_SECRET_ACCESS_KEY=***&y=1",
        ),
    ],
)
@pytest.mark.parametrize("way", ["file", "environment", "set"])
def test_a_password_within_a_url_is_hidden(url: str, shown: str, way: str) -> None:
    made = {
        "file": lambda: config({"store": {"url": url}}),
        "environment": lambda: config({}, {"SC_STORE__URL": url}),
        "set": lambda: config({}, sets=(f"store.url={url}",)),
    }[way]()
    assert made.settings.store.url == url
    assert HUSH not in seen(made)
    assert f'url = "{shown}"' in made.dump()
    assert HUSH not in made.mask(f"cannot reach {url} or '{url}'")


@pytest.mark.parametrize(
    "url", ["delta:data/bars", "sqlite:///a.db", "http://h:80/x", "delta:s3://b"]
)
def test_a_url_without_a_password_is_shown_as_it_is(url: str) -> None:
    assert f'url = "{url}"' in config({"store": {"url": url}}).dump()
    assert not isinstance(expand(url, {}), MaskedText)


def test_an_option_with_the_name_of_a_secret_is_hidden() -> None:
    source = {"name": "a", "kind": "web", "options": {"api_key": HUSH, "depth": "3"}}
    made = config({"sources": [source]}, {"SC_STRATEGY__PARAMS__TOKEN": "t0ken"})
    assert made.settings.sources[0].options == {"api_key": HUSH, "depth": "3"}
    assert made.settings.strategy.params == {"token": "t0ken"}
    assert HUSH not in seen(made)
    assert "t0ken" not in seen(made)
    assert made.mask(f"{HUSH} t0ken 3") == "*** *** 3"


@pytest.mark.parametrize(
    "tables",
    [
        {"store": "postgres://u:hunter2@h"},
        {"base_interval": "${PW}"},
        {"base_interval": ["postgres://u:hunter2@h"]},
        {"calendar": {"hours": "${PW}"}},
        {"symbols": ["${PW}!"]},
        {"symbols": "postgres://u:hunter2@h"},
        {"symbols_file": "${PW}"},
        {"upkeep": {"max_retries": "${PW}"}},
        {"upkeep": {"derived_intervals": ["${PW}"]}},
        {"strategy": {"class": "${PW}"}},
        {"strategy": "postgres://u:hunter2@" + "h" * 100},
        {"sources": [{"name": "${PW}", "kind": "a"}, {"name": "${PW}", "kind": "a"}]},
        {"nonsense": "postgres://u:hunter2@h"},
    ],
)
def test_an_error_shows_no_secret(tables: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        config(tables, {"PW": "hunter2"})
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value)


def test_a_malformed_set_shows_no_password() -> None:
    with pytest.raises(ConfigError) as caught:
        config({}, sets=("postgres://u:hunter2@h",))
    assert "hunter2" not in str(caught.value)


def test_a_calendar_from_the_environment_is_plain_text_but_dumped_as_written() -> None:
    """Its name is in every report, and whatever encodes it must not stumble."""
    made = config({"calendar": {"name": "${CAL}"}}, {"CAL": "NYSE"})
    assert type(made.settings.calendar.name) is str
    assert made.settings.calendar.name == "NYSE"
    assert 'name = "${CAL}"' in made.dump()
    assert made.mask("NYSE") == "NYSE"


def test_secrets_do_not_change_the_digest_but_a_calendar_does() -> None:
    tables: dict[str, object] = {"ledger": {"url": "x://u:${PW}@h"}, "calendar": {"name": "${CAL}"}}
    one = config(tables, {"PW": "one", "CAL": "NYSE"})
    assert config(tables, {"PW": "two", "CAL": "NYSE"}).digest == one.digest
    assert config(tables, {"PW": "one", "CAL": "LSE"}).digest != one.digest


def test_two_dollars_stand_for_a_literal_reference() -> None:
    made = config({"strategy": {"params": {"a": "$${HOME} $5 $$ ${X}"}}}, {"X": "${Y}"})
    assert made.settings.strategy.params["a"] == "${HOME} $5 $$ ${Y}"


def test_masking_finds_a_secret_in_the_forms_that_libraries_print() -> None:
    hush = "p%40ss\nword"
    for printed in (hush, "p@ss\nword", repr(hush)):
        masked = mask_secrets(f"before {printed} after", [hush])
        assert "word" not in masked
        assert masked.startswith("before ")


def test_a_short_secret_is_masked_where_it_stands_alone() -> None:
    assert mask_secrets("a bar of a: 'a'", ["a", "", " "]) == "*** bar of ***: '***'"
    assert mask_secrets("secretary, 1secret1", ["secret"]) == "***ary, 1***1"
    assert mask_secrets("abcdef abcd", ["abcd", "abcdef"]) == "*** ***"


def test_masked_json_stays_json() -> None:
    text = '{"url":"postgresql://u:p@h","mail":"a@b"}'
    assert mask_urls(text) == '{"url":"postgresql://u:***@h","mail":"a@b"}'


def test_a_masked_text_is_the_text_itself_and_not_encoded_by_accident() -> None:
    text = expand("x://u:${PW}@h", {"PW": "hunter2"})
    assert text == "x://u:hunter2@h"
    assert repr(text) == "'x://u:${PW}@h'"
    assert repr(copy.deepcopy(text)) == repr(text)
    with pytest.raises(TypeError):
        msgspec.json.encode(text)
