"""What only PostgreSQL understands: how its server is reached, locks, and what its errors mean."""

from __future__ import annotations

import logging
import re
from hashlib import blake2b
from typing import TYPE_CHECKING

from stream_coord.errors import ConfigError, LedgerError, StoreError, near_miss
from stream_coord.stores.database.base import DAMAGED, Database, Flavour, Reason, Subject
from stream_coord.stores.database.text import storable

if TYPE_CHECKING:
    import sqlalchemy as sa

CONNECT_SECONDS = 10
WAIT_SECONDS = 60
"""How long a transaction waits for a lock."""

_DEFAULTS = {
    "connect_timeout": CONNECT_SECONDS,
    "application_name": "stream-coord",
    # A server that is gone without a word is noticed within a minute, not after two hours.
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}

_GRANT = "Let its administrator grant what is missing, or name another user in {url}."
_REFUSED = Reason(
    "cannot be opened: the server refuses the user or the password",
    "Correct the user and the password in {url}, or set PGPASSWORD.",
)
_NO_DATABASE = Reason(
    "cannot be opened: the server has no such database",
    "Correct {url}, or make the database with `createdb`.",
)
_CROWDED = Reason("cannot be opened: the server has too many connections", "Try again later.")
_NOT_READY = Reason("cannot be opened: the server is starting or stopping", "Try again later.")
_LOST = Reason("has lost its connection to the server", "Look at the server, then run it again.")

_STATES = {
    "08": _LOST,
    "25006": Reason("cannot be written: its user or its server is read-only", _GRANT),
    "28": _REFUSED,
    "3D000": _NO_DATABASE,
    "40": Reason(
        "was changed by another writer at the same time", "Run it again.", kind="conflict"
    ),
    "42501": Reason("cannot be used: its user may not do that", _GRANT),
    "53100": Reason("cannot be written: the server's disk is full", "Make room and run it again."),
    "53200": Reason("cannot be used: the server is out of memory", "Try again later."),
    "53300": _CROWDED,
    "55P03": Reason("is busy: another process keeps writing it", "Try again later.", "conflict"),
    "57014": Reason("failed: the server ended a statement that took too long"),
    "57P": _LOST,
    "57P03": _NOT_READY,
    "XX001": DAMAGED,
    "XX002": DAMAGED,
}
"""By SQLSTATE, or by its beginning."""

_TEXTS = {
    "password authentication failed|no password supplied": _REFUSED,
    r'database ".*" does not exist': _NO_DATABASE,
    r'role ".*" does not exist': _REFUSED,
    "permission denied|no pg_hba.conf entry|not permitted to log in": Reason(
        "cannot be opened: the server does not let this user in", _GRANT
    ),
    "too many (clients|connections)|connection slots": _CROWDED,
    "database system is": _NOT_READY,
    "closed the connection|connection (is|was) (lost|closed)|(receive|send) data": _LOST,
    "timeout expired|timed out": Reason(
        "cannot be opened: the server does not answer in time",
        "Look at the server and the way to it, or set connect_timeout in {url}.",
    ),
    "Connection refused|No such file or directory": Reason(
        "cannot be opened: no server listens there", "Start the server, or correct {url}."
    ),
    "resolve host|translate host|not known|name resolution": Reason(
        "cannot be opened: its host is unknown", "Correct {url}."
    ),
    "invalid response to SSL": Reason(
        "cannot be opened: what answers there is no PostgreSQL server", "Correct {url}."
    ),
    "No route to host|unreachable": Reason(
        "cannot be opened: no way leads to its host", "Look at the network, or correct {url}."
    ),
}
"""By what libpq says: with a connection that fails or breaks, it passes on no SQLSTATE."""


def open_postgres(
    address: sa.URL, *, subject: Subject, error: type[LedgerError | StoreError]
) -> Database:
    """Return a database of a PostgreSQL server (see `open_database`)."""
    engine = postgres_engine(address, f"[{subject}] url")
    password = str(address.password or "")
    return Database(
        engine=engine,
        url=storable(address.render_as_string(hide_password=True)),
        name=_name(address),
        subject=subject,
        error=error,
        flavour=Flavour(
            raises=engine.dialect.loaded_dbapi.Error,
            explain=lambda error: explain(error, password),  # a repr would show a partial's
            writing={"isolation_level": "READ COMMITTED"},  # under a lock, sees what was committed
            lock=take_lock,
        ),
    )


def _name(address: sa.URL) -> str:
    """Return what messages call a database: its address without password and options."""
    from sqlalchemy import URL

    return storable(
        URL.create(
            "postgresql", address.username, None, address.host, address.port, address.database
        ).render_as_string()
    )


def postgres_engine(address: sa.URL, place: str) -> sa.Engine:
    """Return an engine for a PostgreSQL database; nothing is connected yet.

    A transaction is REPEATABLE READ: it sees one state. With the execution option ``writes`` it
    waits, as it begins, for the other writers of this name: an advisory lock, since a table's
    would wait for backups too.

    Args:
        address: With the driver ``postgresql+psycopg``. Options of libpq that it does not state
            get our defaults.
        place: What messages call the address.

    Raises:
        ConfigError: psycopg is not installed, or an option is none of libpq's.
    """
    import sqlalchemy as sa

    known = _libpq_options()
    for name in address.query:
        if name not in known:
            raise ConfigError(
                f"{place} has an option {name!r} that libpq does not know{near_miss(name, known)}"
            )
    try:
        engine = sa.create_engine(
            address,
            connect_args={name: _DEFAULTS[name] for name in _DEFAULTS if name not in address.query},
            isolation_level="REPEATABLE READ",
            pool_pre_ping=True,  # a replay may be silent for longer than a firewall remembers
            hide_parameters=True,
            use_native_hstore=False,  # or each engine would ask for a type that we do not use
        )
    except (sa.exc.ArgumentError, ValueError):
        raise ConfigError(f"{place} has options that contradict each other") from None
    # What the pool has to say of a connection that is gone, the error says in its own words.
    logging.getLogger("sqlalchemy.pool").addHandler(logging.NullHandler())
    sa.event.listen(engine, "begin", _begin)
    return engine


def _libpq_options() -> set[str]:
    try:
        from psycopg.pq import Conninfo
    except ImportError as error:
        raise ConfigError(
            f"PostgreSQL needs a library that is not installed ({error.name or 'libpq'})",
            'Run: pip install "stream-coord[postgres]"',
        ) from error
    return {option.keyword.decode() for option in Conninfo.get_defaults()}


def explain(error: BaseException | None, password: str = "") -> Reason:
    """Return what an error of psycopg means; `password` is in none of the words."""
    state = getattr(error, "sqlstate", None) or ""
    for length in (5, 3, 2):
        if state[:length] in _STATES:
            return _STATES[state[:length]]
    text = str(error)
    for pattern, reason in _TEXTS.items():
        if not state and re.search(pattern, text):
            return reason
    words = getattr(getattr(error, "diag", None), "message_primary", None) or text
    said = " ".join(words.split())[:300]
    return Reason(f"failed: {said.replace(password, '***') if password else said}")


def _begin(connection: sa.Connection) -> None:
    name = connection.get_execution_options().get("writes")
    if name:
        take_lock(connection, str(name))


def take_lock(connection: sa.Connection, name: str) -> None:
    """Wait for the other writers of a name; the lock ends with the transaction."""
    cursor = connection.connection.cursor()
    cursor.execute(
        "SELECT set_config('lock_timeout', %s, true), pg_advisory_xact_lock(%s)",
        (str(int(1000 * WAIT_SECONDS)), lock_key(name)),
    )
    cursor.close()


def lock_key(name: str) -> int:
    """Return the number of the advisory lock that writers of `name` hold, of 64 bits."""
    digest = blake2b(f"stream-coord {name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
