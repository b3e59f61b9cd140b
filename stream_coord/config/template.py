"""The commented settings file that ``sc init`` writes, made of the settings' own documentation."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, get_args, get_origin

from msgspec import NODEFAULT, Meta, Struct, structs

from stream_coord.config.check import allowed, bare_type, is_struct
from stream_coord.config.settings import Settings, is_built

_HEAD = """\
# The settings of stream-coord.
#
# '#key = value' is a setting at its default: take the '#' away to change it. '# key = value' is an
# example of a setting that has no default. A variable SC_SECTION__KEY in the environment (such as
# SC_STORE__URL) overrides this file, and --set section.key=value on the command line overrides
# both. ${NAME} in a text is taken from the environment and never printed; $${ is a plain ${.
"""


def template(symbols: Sequence[str] = (), *, values: Mapping[str, object] | None = None) -> str:
    """Return a commented ``sc.toml`` with every setting in it.

    Args:
        symbols: The symbols to write; none for all that the store holds.
        values: Further settings to write, by dotted key, such as ``{"calendar.name": "24/7"}``;
            scalars and lists of them.

    Raises:
        ValueError: a key of `values` is no setting.
    """
    chosen = dict(values or {})
    if symbols:
        chosen["symbols"] = list(symbols)
    text = "\n".join([_HEAD, *_table(Settings, "", chosen)]) + "\n"
    if chosen:
        raise ValueError(f"no such settings: {', '.join(chosen)}")
    return text


def _table(cls: type[Struct], prefix: str, chosen: dict[str, object]) -> Iterator[str]:
    """Yield the lines of a table, the tables within it last; what is written leaves `chosen`."""
    inner: list[str] = []
    for info in structs.fields(cls):
        key, kind = prefix + info.encode_name, bare_type(info.type)
        item = get_args(kind)[0] if get_origin(kind) is list else None
        if is_struct(kind):
            inner += ["", *_title(kind, key), f"[{key}]", *_table(kind, key + ".", chosen)]
        elif is_struct(item):
            inner += ["", *_title(item, key), f"# [[{key}]]", *_table(item, key + "[].", chosen)]
        else:
            yield from _comment(_description(info))
            yield _setting(info, key, chosen)
    yield from inner


def _setting(info: structs.FieldInfo, key: str, chosen: dict[str, object]) -> str:
    if key in chosen:
        return f"{info.encode_name} = {_literal(chosen.pop(key))}"
    default = info.default if info.default_factory is NODEFAULT else info.default_factory()
    if default is None or default is NODEFAULT:
        return f"# {info.encode_name} = {_literal(_example(info))}"
    # Within the example of a list's table there is nothing to take a '#' away from.
    return f"#{' ' if '[]' in key else ''}{info.encode_name} = {_literal(default)}"


def _title(cls: type[Struct], key: str) -> list[str]:
    mark = "" if is_built(key) else " (not in this version yet)"
    return _comment(f"{inspect.getdoc(cls)}{mark}")


def _description(info: structs.FieldInfo) -> str:
    text = next(meta.description for meta in reversed(_metas(info)) if meta.description)
    kind = bare_type(info.type)
    limited = kind is int or get_origin(kind) is Literal
    limits = allowed(info.type).removeprefix("a whole number from ")
    return f"{text} ({limits})" if limited else text


def _example(info: structs.FieldInfo) -> object:
    return next(meta.examples[0] for meta in reversed(_metas(info)) if meta.examples)


def _metas(info: structs.FieldInfo) -> list[Meta]:
    return [meta for meta in get_args(info.type) if isinstance(meta, Meta)]


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, 100, initial_indent="# ", subsequent_indent="# ")


def _literal(value: object) -> str:
    """Return a value as TOML, on one line."""
    import tomli_w

    if isinstance(value, list):
        return f"[{', '.join(_literal(item) for item in value)}]"
    if value == {}:
        return "{}"
    return tomli_w.dumps({"v": value}).removeprefix("v = ").rstrip("\n")
