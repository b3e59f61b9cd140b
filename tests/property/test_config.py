"""Whatever is given as settings: a configuration or a ConfigError, and no secret shown."""

from __future__ import annotations

import math
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import tomli_w
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stream_coord.config import Config, config_from_tables, load_config
from stream_coord.config.masking import MaskedText
from stream_coord.errors import ConfigError

ROOT = Path("/nowhere")
patient = settings(deadline=None)  # how long one takes depends on who else uses the machine
SECTIONS = ["store", "ledger", "calendar", "upkeep", "history", "prefetch", "session", "strategy"]
TOP = ["symbols", "symbols_file", "base_interval", "sources", *SECTIONS]
KEYS = ["url", "name", "kind", "path", "options", "hours", "overrides", "enabled", "max_retries"]
KEYS += [
    "derived_intervals",
    "intervals",
    "synthesize",
    "keep",
    "timeout_seconds",
    "class",
    "params",
]

keys = st.sampled_from(KEYS) | st.text(max_size=5)
tricky = ["1m", "5m", "7m", "1d", "flat", "m:C", "a://u:p@h", "${A}", "${B}", "$${", "${", "SPY"]
texts = st.sampled_from(tricky) | st.text(max_size=8)
times = st.dates() | st.times() | st.datetimes()
scalars = texts | st.booleans() | st.integers(-5, 99) | st.integers() | st.floats() | times
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3)
)
tables = st.dictionaries(
    st.sampled_from(TOP) | keys, st.dictionaries(keys, values, max_size=4) | values, max_size=4
)
# Values that come back from a dump: no reference, no NaN, nothing that is not TOML.
plain = st.text(st.characters(exclude_characters="$\0", exclude_categories=["Cs"]), max_size=9)
plain_scalars = st.one_of(
    plain,
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.dates(),
)
plain_values = st.recursive(
    plain_scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain, inner, max_size=3),
)


def load(
    given_tables: Mapping[str, object],
    sets: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Config:
    return config_from_tables(given_tables, root=ROOT, sets=sets, environ=environ or {})


def check_message(error: ConfigError) -> None:
    assert str(error).encode(), "the message is there and can be printed"
    assert error.exit_code == 2


@patient
@given(st.dictionaries(st.sampled_from(TOP) | keys, st.from_type(object) | values, max_size=4))
def test_any_object_as_a_setting_gives_a_config_or_a_config_error(
    given_tables: dict[str, object],
) -> None:
    try:
        load(given_tables).dump().encode()
    except ConfigError as error:
        check_message(error)


@patient
@given(
    st.one_of(
        st.binary(max_size=60),
        st.text(max_size=60).map(str.encode),
        st.lists(st.sampled_from(["[", "]", "{", "}", "=", "\n", "'", '"', ".", "store", "1"]))
        .map("".join)
        .map(str.encode),
        tables.map(tomli_w.dumps).map(lambda text: text.encode(errors="surrogatepass")),
    )
)
def test_any_file_gives_a_config_or_a_config_error(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sc.toml"
        path.write_bytes(content)
        try:
            load_config(path, environ={"A": "a value"}).dump().encode()
        except ConfigError as error:
            check_message(error)


@patient
@given(
    tables,
    st.lists(
        st.builds("{}.{}={}".format, st.sampled_from(TOP) | keys, keys, texts)
        | st.builds("{}={}".format, st.sampled_from(TOP), texts)
        | st.text(max_size=9),
        max_size=3,
    ),
    st.dictionaries(
        st.builds("SC_{}__{}".format, st.sampled_from(TOP) | keys, keys).map(str.upper)
        | st.sampled_from(TOP).map(lambda key: f"SC_{key.upper()}"),
        texts,
        max_size=3,
    ),
)
def test_any_override_gives_a_config_or_a_config_error(
    given_tables: dict[str, object], sets: list[str], environ: dict[str, str]
) -> None:
    try:
        load(given_tables, sets, environ).dump().encode()
    except ConfigError as error:
        check_message(error)


def literal(value: object) -> str:
    """Return a value as the text of a TOML value, made by tomli-w."""
    return tomli_w.dumps({"v": [value]}).removeprefix("v = ")


@patient
@given(st.lists(plain_values, max_size=3))
def test_a_value_by_set_or_environment_is_what_the_file_would_hold(value: list[object]) -> None:
    text = literal(value)
    expected = tomllib.loads(f"v = {text}")["v"]
    by_set = load({}, [f"strategy.params.x={text}"])
    by_environment = load({}, (), {"SC_STRATEGY__PARAMS__X": text})
    assert by_set.settings.strategy.params == {"x": expected}
    assert by_environment.settings == by_set.settings
    assert by_environment.digest == by_set.digest


@patient
@given(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1))
def test_an_unquoted_text_by_set_is_that_text(text: str) -> None:
    assert load({}, [f"store.url={text}"]).settings.store.url == text
    assert load({}, [f"symbols={text}"]).settings.symbols == [text] if len(text) <= 64 else True


@patient
@given(
    st.lists(st.sampled_from(["SPY", "AIG", "BRK.B"])),
    st.dictionaries(plain, plain_values, max_size=3),
    st.dictionaries(plain, plain_values, max_size=3),
    st.integers(0, 10_000),
    plain.filter(bool),
)
def test_a_dump_reads_back_as_the_same_settings(
    symbols: list[str],
    params: dict[str, object],
    overrides: dict[str, object],
    trailing_days: int,
    name: str,
) -> None:
    config = load(
        {
            "symbols": symbols,
            "calendar": {"name": name, "overrides": overrides},
            "history": {"trailing_days": trailing_days},
            "sources": [{"name": name, "kind": "k", "options": params}],
            "strategy": {"params": params},
        }
    )
    assume("***" not in config.dump())  # a text that looks like a password does not come back
    again = load(tomllib.loads(config.dump()))
    assert again.settings == config.settings
    assert again.digest == config.digest


@patient
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["keep", "window_minutes"]), st.integers(0, 2), st.integers(1, 9)
        ),
        max_size=6,
    )
)
def test_the_highest_layer_wins_and_within_set_the_last(
    writes: list[tuple[str, int, int]],
) -> None:
    file: dict[str, object] = {}
    environ: dict[str, str] = {}
    sets: list[str] = []
    expected = {"keep": (-1, 2), "window_minutes": (-1, 60)}
    for key, layer, value in writes:
        if layer == 0:
            file[key] = value
        elif layer == 1:
            environ[f"SC_PREFETCH__{key.upper()}"] = str(value)
        else:
            sets.append(f"prefetch.{key}={value}")
        if layer >= expected[key][0]:
            expected[key] = (layer, value)
    made = load({"prefetch": file}, sets, environ).settings.prefetch
    assert (made.keep, made.window_minutes) == (expected["keep"][1], expected["window_minutes"][1])


@patient
@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=6))
def test_a_secret_is_never_shown(hush: str) -> None:
    assume(hush not in "postgresql://sc:@db.example.com/ledger" and "***" not in hush)
    url = "postgresql://sc:${PW}@db.example.com/ledger"
    config = load(
        {"ledger": {"url": url}, "strategy": {"params": {"a": "${PW}"}}}, (), {"PW": hush}
    )
    assert config.settings.strategy.params == {"a": hush}
    assert isinstance(config.settings.ledger.url, MaskedText)
    without = load({"ledger": {"url": url}, "strategy": {"params": {"a": "${PW}"}}}, (), {"PW": ""})
    assert repr(config) == repr(without), "what is shown does not depend on the secret"
    assert config.dump() == without.dump()
    assert hush not in config.mask(f"cannot log in with {hush!r} or {hush}")


@patient
@given(st.floats(allow_nan=False) | st.integers(-(2**63), 2**63 - 1))
def test_numbers_of_params_keep_their_value_and_type(number: float) -> None:
    made = load({}, [f"strategy.params.x={tomli_w.dumps({'v': number})[4:]}"])
    x = made.settings.strategy.params["x"]
    assert type(x) is type(number)
    assert isinstance(x, (int, float))
    assert x == number
    assert math.copysign(1, x) == math.copysign(1, number)
