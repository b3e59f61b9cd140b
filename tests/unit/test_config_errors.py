"""Settings that are wrong: each problem is named with its place, value and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream_coord.config import config_from_tables, load_config
from stream_coord.errors import ConfigError


def problem(
    folder: Path,
    content: str | bytes,
    sets: tuple[str, ...] = (),
    environ: dict[str, str] | None = None,
) -> str:
    """Load what must be refused, and return what the user reads."""
    data = content.encode() if isinstance(content, str) else content
    (folder / "sc.toml").write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        load_config(None, sets=sets, environ=environ or {}, cwd=folder)
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("symbls = []", ["sc.toml: unknown key symbls", "did you mean 'symbols'?", "allowed: sym"]),
        ("[upkeep]\nmax_retry = 1", ["unknown key upkeep.max_retry", "'max_retries'?"]),
        ("[stroe]\nurl = 'x'", ["unknown key stroe", "'store'?"]),
        ('"a\\nb" = 1', [r"unknown key 'a\nb'"]),
        ("store = 5", ["store = 5: must be a table, written as [store]"]),
        ("[[store]]", ["store = [...]: must be a table"]),
        ("[sources]", ["sources = {}: must be a list of tables, written as [[sources]]"]),
        ("symbols = 'SPY'", ["symbols = 'SPY': must be a list of texts"]),
        ("symbols = ['A', 5]", ["symbols[1] = 5: must be a text"]),
        ("[upkeep]\nenabled = 1", ["upkeep.enabled = 1: must be true or false"]),
        ("[upkeep]\nenabled = 'true'", ["upkeep.enabled = 'true': must be true or false"]),
        (
            "[upkeep]\nmax_retries = true",
            ["upkeep.max_retries = true: must be a whole number from 0"],
        ),
        ("[upkeep]\nmax_retries = -1", ["= -1: must be a whole number from 0 to 10000"]),
        ("[upkeep]\nmax_retries = 2.0", ["= 2.0: must be a whole number"]),
        ("[upkeep]\nmax_retries = nan", ["= nan: must be a whole number"]),
        ("[upkeep]\nmax_retries = 99999999999999999999", ["= an integer of 67 bits: must be"]),
        ("[upkeep]\nmax_retries = 0x" + "f" * 9000, ["= an integer of 36000 bits: must be"]),
        ("[upkeep]\ncheck_interval_seconds = 0", ["= 0: must be a whole number from 1 to 86400"]),
        ("[upkeep]\ngrace_seconds = -1", ["= -1: must be a whole number from 0 to 86400"]),
        ("[upkeep]\nsynthesize = 'linear'", ["= 'linear': must be 'flat' or 'none'"]),
        ("[history]\ntrailing_days = -5", ["= -5: must be a whole number from 0"]),
        ("[history]\nadjust = 'dividend'", ["= 'dividend': must be 'none' or 'split'"]),
        ("[prefetch]\nkeep = 0", ["prefetch.keep = 0: must be a whole number from 1"]),
        ("[prefetch]\nwindow_minutes = 0", ["= 0: must be a whole number from 1 to 1440"]),
        ("[session]\ntimeout_seconds = 0", ["= 0: must be a whole number from 1"]),
        ("[session]\npost_market_roll_delay_minutes = -1", ["= -1: must be a whole number from 0"]),
        (
            "[store]\nurl = 'sqlite:///x/../data/a.db'\n[ledger]\nurl = 'sqlite:///data/a.db'",
            ["ledger.url names the file of [store] url", "name another"],
        ),
        ("[calendar]\nhours = 'all'", ["calendar.hours = 'all': must be 'extended' or 'regular'"]),
        ("[store]\nurl = ''", ["store.url = '': must be a text that is not empty"]),
        ('[store]\nurl = "a\\u0000"', ["must be a text of valid Unicode without NUL"]),
        ("[calendar]\nhours = '" + "x" * 500 + "'", ["xxx...xxx"]),
        (
            "base_interval = '7m'",
            ["base_interval = '7m': must be shorter than 1d and divide a day"],
        ),
        ("base_interval = '1d'", ["base_interval = '1d': must be shorter than 1d"]),
        ("base_interval = '1 m'", ["base_interval = '1 m': must be a number and a unit"]),
        ("[upkeep]\nderived_intervals = ['5x']", ["derived_intervals[0] = '5x': must be a number"]),
        (
            "[upkeep]\nderived_intervals = ['90s']",
            ["must be a whole multiple of base_interval (1m)"],
        ),
        (
            "[upkeep]\nderived_intervals = ['150s']",
            ["must be a whole multiple of base_interval (1m)"],
        ),
        (
            "[history]\nintervals = ['90s']",
            ["= '90s': must be a whole multiple of base_interval (1m)"],
        ),
        ("[upkeep]\nderived_intervals = ['5m', '1m']", ["[1] = '1m': must be", "longer than it"]),
        (
            "[history]\nintervals = ['30s']",
            ["history.intervals[0] = '30s': must be a whole multiple"],
        ),
        ("symbols = ['A', '../../etc/x']", ["symbols[1] = '../../etc/x': must be a symbol", "64"]),
        ("symbols_file = 'no.txt'", ["symbols_file = 'no.txt': cannot be read: No such file"]),
        ("symbols_file = '.'", ["symbols_file = '.': cannot be read: Is a directory"]),
        ("[[sources]]\nkind = 'a'", ["sources[0].name: is missing"]),
        (
            "[[sources]]\nname = 'a'\nkind = 'b'\n[[sources]]\nname = 'a'\nkind = 'c'",
            ["sources[1].name = 'a': must be a name of its own"],
        ),
        (
            "[[sources]]\nname = 'a'\nkind = 'b'\nurl = 'x'\npath = 'y'",
            ["sources[0].path: is given beside url"],
        ),
        ("[strategy]\nclass = 'Mine'", ["strategy.class = 'Mine': must be module:Class"]),
        ("[strategy]\nclass = 'm:not a name'", ["must be module:Class or path.py:Class"]),
        ("[strategy.params]\nx = [nan]", ["strategy.params.x[0] = nan: must be a number"]),
        ("[strategy.params]\nx = 99999999999999999999", ["= an integer of 67 bits: must be"]),
        ("[strategy]\nparams" + ".a" * 900 + " = 1", ["is nested deeper than 32 levels"]),
        ("[store]\nurl = '${NOPE}'", ["sc.toml: store.url: not set in the environment: NOPE"]),
        ("[store]\nurl = '${A}${B}'", ["not set in the environment: A, B"]),
        ("[store]\nurl = '${'", ["store.url: holds a '${' that begins no ${NAME}"]),
        ("[store]\nurl = '${a b}'", ["write $${ for a literal ${"]),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(
    tmp_path: Path, text: str, parts: list[str]
) -> None:
    message = problem(tmp_path, text)
    assert all(part in message for part in parts), message
    assert len(message.splitlines()) <= 2
    assert len(message) < 400


def test_all_problems_are_told_at_once_one_line_each(tmp_path: Path) -> None:
    text = """
    symbls = []
    base_interval = "7m"
    symbols = ["*"]
    store = 1
    [upkeep]
    max_retries = "many"
    [calendar]
    hours = "half"
    """
    message = problem(
        tmp_path, text, ("a.b=1", "novalue"), {"SC_LEDGER__URI": "x", "SC_UPKEEP__ENABLED": "no"}
    )
    first, *lines = message.splitlines()
    assert first == "10 settings are wrong:"
    starts = [
        "environment variable SC_LEDGER__URI: unknown key ledger.uri (did you mean 'url'?)",
        "--set: unknown key a",
        "--set 'novalue': must be section.key=value",
        "sc.toml: unknown key symbls",
        "sc.toml: store = 1",
        "sc.toml: calendar.hours = 'half'",
        "sc.toml: upkeep.max_retries = 'many'",
        "environment variable SC_UPKEEP__ENABLED: upkeep.enabled = 'no'",
        "sc.toml: base_interval = '7m'",
        "sc.toml: symbols[0] = '*'",
    ]
    for start in starts:
        assert sum(line.startswith(start) for line in lines) == 1, start


def test_thousands_of_problems_are_counted_and_not_all_shown(tmp_path: Path) -> None:
    message = problem(tmp_path, "\n".join(f"key{i} = 1" for i in range(3000)))
    assert message.startswith("3000 settings are wrong:\n")
    assert message.endswith("\n... and 2900 more")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"x = [\n", "sc.toml: is not valid TOML: Invalid value (at end of document)"),
        (b"a = 1\na = 2\n", "sc.toml: is not valid TOML: Cannot overwrite a value (at line 2"),
        (b"\n\nx = " + b"[" * 3000 + b"]" * 3000, "sc.toml, line 3: arrays or tables are nested"),
        (b"x = " + b"{a=" * 3000, "sc.toml: arrays or tables are nested too deeply"),
        (b"\nx = " + b"9" * 6000, "sc.toml, line 2: an integer has more than 64 bits"),
        (b"x = 1\ny = '\xff'", "sc.toml: line 2 is not UTF-8"),
        ("x = 1".encode("utf-16"), "sc.toml: line 1 is not UTF-8"),
        (b"\xef\xbb\xbfsymbols = []", "sc.toml: line 1 begins with a byte order mark"),
        (b"#" * 1_000_001, "sc.toml: is larger than 1,000,000 bytes"),
        (bytes(range(1, 256)), "sc.toml: line 2 is not UTF-8"),
        (b"\0" * 10, "sc.toml: is not valid TOML"),
    ],
)
def test_a_file_that_is_no_toml_is_refused_with_the_place(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    assert problem(tmp_path, content).startswith(expected)


def test_a_file_of_the_greatest_size_is_read(tmp_path: Path) -> None:
    (tmp_path / "sc.toml").write_bytes(b"#" * 1_000_000)
    assert load_config(None, environ={}, cwd=tmp_path).symbols == ()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("missing.toml", "missing.toml: there is no such file\n`sc init` writes one"),
        (".", ".: cannot be read: Is a directory"),
        ("sc.toml/x", "sc.toml/x: cannot be read: Not a directory"),
        ("\udcff.toml", r"'\udcff.toml': there is no such file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, expected: str) -> None:
    (tmp_path / "sc.toml").write_text("")
    with pytest.raises(ConfigError) as caught:
        load_config(Path(name), environ={}, cwd=tmp_path)
    assert str(caught.value).startswith(expected)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"SC_SYMBOL": "SPY"}, "variable SC_SYMBOL: unknown key symbol (did you mean 'symbols'?)"),
        (
            {"SC_STOER__URL": "x"},
            "variable SC_STOER__URL: unknown key stoer (did you mean 'store'?)",
        ),
        ({"SC_STORE": "delta:x"}, "variable SC_STORE: store = 'delta:x': must be a table"),
        ({"SC_STORE__URL__X": "1"}, "SC_STORE__URL__X: store.url is a single setting"),
        ({"SC_STORE__": "1"}, "variable SC_STORE__: unknown key store.''"),
        ({"SC_STORE__URL": "\udcff"}, r"store.url = '\udcff': must be a text of valid Unicode"),
        ({"SC_UPKEEP__MAX_RETRIES": "20000"}, "upkeep.max_retries = 20000: must be a whole number"),
        ({"SC_UPKEEP__MAX_RETRIES": "many"}, "SC_UPKEEP__MAX_RETRIES: upkeep.max_retries = 'many'"),
        ({"SC_UPKEEP__MAX_RETRIES": "9" * 6000}, "must be a whole number"),
        ({"SC_STRATEGY__PARAMS": "[" * 3000}, "strategy.params = '[[["),
        ({"SC_SYMBOLS": "SPY,../x"}, "variable SC_SYMBOLS: symbols[1] = '../x': must be a symbol"),
    ],
)
def test_a_wrong_variable_is_named(tmp_path: Path, environ: dict[str, str], expected: str) -> None:
    assert expected in problem(tmp_path, "", (), environ)


@pytest.mark.parametrize("sets", [("",), ("=",), ("store.url",), (".=1",), ("store..url=1",)])
def test_a_malformed_set_is_refused(tmp_path: Path, sets: tuple[str, ...]) -> None:
    assert problem(tmp_path, "", sets).startswith("--set")


def test_an_override_below_a_wrong_value_leaves_the_file_to_blame(tmp_path: Path) -> None:
    message = problem(tmp_path, "store = 5", ("store.url=delta:x",))
    assert message.startswith("sc.toml: store = 5: must be a table")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("SPY\n# x\n../x\n", "symbols_file (line 3 of 'list.txt') = '../x': must be a symbol"),
        ("SPY,AIG", "symbols_file (line 1 of 'list.txt') = 'SPY,AIG': must be a symbol"),
        ("# none\n", "symbols_file = 'list.txt': holds no symbol"),
        ("\ufeffSPY", "symbols_file = 'list.txt': line 1 begins with a byte order mark"),
    ],
)
def test_a_wrong_symbols_file_is_named_with_its_line(
    tmp_path: Path, content: str, expected: str
) -> None:
    (tmp_path / "list.txt").write_text(content)
    assert expected in problem(tmp_path, "symbols_file = 'list.txt'")


def test_symbols_and_a_symbols_file_exclude_each_other(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("SPY")
    message = problem(tmp_path, "symbols = ['A']\nsymbols_file = 'list.txt'")
    assert message == "sc.toml: symbols_file: is given beside symbols; keep one of the two"


def test_tables_with_what_toml_cannot_hold_are_refused(tmp_path: Path) -> None:
    tables = {"strategy": {"params": {"a": None, "b": {1: 2}, "c": b"x"}}, 5: 1}
    with pytest.raises(ConfigError) as caught:
        config_from_tables(tables, root=tmp_path, environ={})  # type: ignore[arg-type]  # on purpose
    lines = str(caught.value).splitlines()[1:]
    assert len(lines) == 4
    assert all(line.startswith("settings: ") for line in lines)
