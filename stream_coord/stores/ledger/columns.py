"""Columns of the ledger's tables, and the types of what is in them, for any database.

sqlalchemy is slow to import, so every function here imports it itself.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

from stream_coord.stores.database.text import storable

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.types import TypeEngine

_T = TypeVar("_T")


def columns(
    kind: TypeEngine[_T], *names: str, nullable: bool = False, primary_key: bool = False
) -> list[sa.Column[_T]]:
    """Return columns of one kind; none of them takes NULL unless `nullable`."""
    import sqlalchemy as sa

    return [sa.Column(name, kind, nullable=nullable, primary_key=primary_key) for name in names]


def parent(
    name: str, target: str, *, index: bool = False, primary_key: bool = False
) -> sa.Column[int]:
    """Return a reference to another table's row; this one is deleted with it."""
    import sqlalchemy as sa

    reference = sa.ForeignKey(target, ondelete="CASCADE")
    return sa.Column(
        name, sa.Integer(), reference, nullable=False, index=index, primary_key=primary_key
    )


def plain_text() -> TypeEngine[str]:
    """Return the type of a text that every database sorts alike: by its bytes."""
    from sqlalchemy import Text

    return Text().with_variant(Text(collation="C"), "postgresql")


def outside_text(characters: int | None = None) -> TypeEngine[str]:
    """Return the type of a text from outside: made storable, and cut to `characters`."""
    from sqlalchemy import Dialect
    from sqlalchemy.types import TypeDecorator

    class OutsideText(TypeDecorator[str]):
        impl = plain_text()
        cache_ok = True

        def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 -- sqlalchemy's signature
            return None if value is None else storable(value)[:characters]

    return OutsideText()


def name_list() -> TypeEngine[tuple[str, ...]]:
    """Return the type of a few names from outside: a JSON list, each made storable."""
    from sqlalchemy import Dialect
    from sqlalchemy.types import TypeDecorator

    class Names(TypeDecorator[tuple[str, ...]]):
        impl = plain_text()
        cache_ok = True

        def process_bind_param(self, value: tuple[str, ...] | None, dialect: Dialect) -> str | None:  # noqa: ARG002 -- sqlalchemy's signature
            return None if value is None else _written(value)

        def process_result_value(
            self,
            value: str | None,
            dialect: Dialect,  # noqa: ARG002 -- sqlalchemy's signature
        ) -> tuple[str, ...] | None:
            return None if value is None else _read(value)

    return Names()


@lru_cache
def _written(names: tuple[str, ...]) -> str:
    return json.dumps([storable(name) for name in names])


@lru_cache
def _read(text: str) -> tuple[str, ...]:
    names: object = json.loads(text)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"no list of names: {text}")
    return tuple(names)
