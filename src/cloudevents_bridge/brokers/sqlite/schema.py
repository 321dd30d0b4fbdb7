"""What the file holds, and how an older file becomes a newer one.

`events.id` is `topic << 40 | sequence`: the events of a topic lie together in the order of their publishing, without
an index beside them. `subscriptions.cursor` is the last event the subscription has looked at. Only an event that is
leased, or that the cursor had to pass over, has a row in `deliveries`; so publishing costs the same for one
subscription and for a hundred.

`deliveries.place` is the id of a subscription, or minus that id for its dead-letter place.
`deliveries.due`: leased: when the lease ends; else when it may be leased; NULL: after the one before it of its key.
`deliveries.serial` grows when a lease begins or ends and is odd while leased: it tells an owner from a former one.
A topic or subscription without a name is deleted; what is left of it goes in small steps.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

APPLICATION_ID = 0x43456272
"""Marks the file as ours, in the bytes where `file` and SQLite look ("CEbr")."""

SEQUENCE_BITS = 40

MIGRATIONS: tuple[Sequence[str], ...] = (
    (
        """CREATE TABLE topics (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            name TEXT UNIQUE,
            ordered INTEGER NOT NULL,
            deduplication REAL NOT NULL,
            last INTEGER NOT NULL DEFAULT 0,   -- at least this event id was given out
            swept INTEGER NOT NULL DEFAULT 0   -- no event up to here is kept without a delivery
        )""",
        """CREATE TABLE subscriptions (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            topic INTEGER NOT NULL,
            name TEXT,
            cursor INTEGER NOT NULL,
            lease REAL NOT NULL,
            max_attempts INTEGER NOT NULL,
            retention REAL NOT NULL,
            expires REAL,
            used REAL NOT NULL,
            UNIQUE (topic, name)
        )""",
        """CREATE TABLE events (
            id INTEGER PRIMARY KEY,
            due REAL NOT NULL,      -- may be delivered from here on; retention counts from here
            target INTEGER,         -- the one place it is for
            expires REAL,
            key TEXT,
            attributes TEXT,        -- JSON; NULL: the usual ones
            body BLOB NOT NULL
        )""",
        """CREATE TABLE deliveries (
            place INTEGER NOT NULL,
            event INTEGER NOT NULL,
            due REAL,
            serial INTEGER NOT NULL,
            attempts INTEGER NOT NULL,
            key TEXT,
            reason TEXT,
            PRIMARY KEY (place, event)
        ) WITHOUT ROWID""",
        "CREATE INDEX deliveries_due ON deliveries (place, due, event) WHERE due IS NOT NULL",
        "CREATE INDEX deliveries_key ON deliveries (place, key, event) WHERE key IS NOT NULL",
        """CREATE TABLE duplicates (
            topic INTEGER NOT NULL,
            dedup TEXT NOT NULL,
            until REAL NOT NULL,
            event INTEGER NOT NULL,
            PRIMARY KEY (topic, dedup)
        ) WITHOUT ROWID""",
        "CREATE INDEX duplicates_until ON duplicates (topic, until)",
        "CREATE TABLE clock (boot TEXT PRIMARY KEY, base REAL NOT NULL, now REAL NOT NULL, wall REAL NOT NULL)",
    ),
)
"""Migration n leads from schema version n to n + 1. What has been released is never edited; new steps are added."""


def migrate(db: sqlite3.Connection, migrations: Sequence[Sequence[str]] = MIGRATIONS) -> None:
    """Bring the file to the newest schema, in the caller's transaction. Runs what is missing, so twice does no harm."""
    version = version_of(db)
    for step in migrations[version:]:
        for statement in step:
            db.execute(statement)
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {max(version, len(migrations))}")


def version_of(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])
