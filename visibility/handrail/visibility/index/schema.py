"""The tables of the index.

`flow.first_sequence` names a flow in all tables: the stream position of its first event.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Double,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    TypeDecorator,
    text,
)

from handrail.mesh.instants import from_micros, micros
from handrail.mesh.wire.ids import LONGEST_KEY

SCHEMA = 7
"""Raise it with each change of the tables: an index of another schema is computed anew."""

NAME = 500
"""The most characters of a text that is looked for: PostgreSQL's indexes take some 2,700 bytes."""

SENTENCE = 4000
"""The most characters of a text for people."""


class Instant(TypeDecorator[datetime]):
    """A time, stored as whole microseconds since 1970 UTC, the same in both databases."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Returns the microseconds."""
        return self.stored(value)

    @staticmethod
    def stored(value: datetime | None) -> int | None:
        """The microseconds."""
        return None if value is None else micros(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        """Returns the time, in UTC."""
        return None if value is None else from_micros(value)


class Words(TypeDecorator[str]):
    """A text of strangers, cut at a number of characters, without the one that PostgreSQL can't store."""

    impl = Text
    cache_ok = True

    def __init__(self, length: int = NAME) -> None:
        super().__init__()
        self.length = length

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Returns what is stored."""
        return self.stored(value)

    def stored(self, value: str | None) -> str | None:
        """The text as it is stored."""
        return None if value is None else value[: self.length].replace("\0", "\ufffd")


SEQUENCE = BigInteger().with_variant(Integer, "sqlite")
"""A sequence of the stream. In SQLite, only a key of exactly this type is the table's own order, without an index."""

metadata = MetaData()

position = Table(
    "position",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("schema", Integer, nullable=False),
    Column("stream_created", Words(), nullable=False),
    Column("sequence", SEQUENCE, nullable=False),
    Column("time", Instant),
    Column("verdicts", SEQUENCE, nullable=False, default=0),
    comment="Handrail: what the index of flows covers",
)
"""One row: what the index covers. `time` is when the message at `sequence` was stored; `verdicts` is the number of the
archive's verdicts that it has taken. In PostgreSQL, the comment tells
that Handrail made the tables."""

flow = Table(
    "flow",
    metadata,
    Column("first_sequence", SEQUENCE, primary_key=True, autoincrement=False),
    Column("flow_type", Words(), nullable=False),
    Column("flow_id", Words(), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("status", Words(), nullable=False),
    Column("reason", Words(SENTENCE), nullable=False),
    Column("halt_mode", SmallInteger, nullable=False),
    Column("requester", Words(), nullable=False),
    Column("key", Words(LONGEST_KEY), nullable=False),
    Column("started", Instant),
    Column("updated", Instant),
    Column("ended", Instant),
    Column("deadline", Instant),
    Column("retrying", Boolean, nullable=False),
    Column("stuck_since", Instant),
    Column("last_sequence", SEQUENCE, nullable=False),
    Column("messages", BigInteger, nullable=False),
    Column("verdict", SEQUENCE),
    Index("flow_by_id", "flow_id", "flow_type"),
    Index("flow_by_type", "flow_type", "first_sequence"),
    Index("flow_by_status", "status", "first_sequence"),
    Index("flow_by_type_and_status", "flow_type", "status", "first_sequence"),
    Index("flow_by_requester", "requester", "first_sequence"),
    Index("flow_by_update", "updated"),
    Index(
        "flow_to_archive",
        "flow_type",
        "version",
        "ended",
        sqlite_where=text("verdict IS NULL AND ended IS NOT NULL"),
        postgresql_where=text("verdict IS NULL AND ended IS NOT NULL"),
    ),
    Index("flow_by_deadline", "deadline"),
)
"""A flow. `verdict` is the number of its verdict in the archive; without one, it is in the stream.

`status` is the end of its enum's name, such as RUNNING. `stuck_since` is since when it waits for a person to
settle a matter. A flow that has not begun has none.
"""

_IS_OPEN, _RETRIES = flow.c.ended.is_(None), flow.c.retrying.is_(True)
Index("flow_open_by_deadline", flow.c.deadline, flow.c.first_sequence, sqlite_where=_IS_OPEN, postgresql_where=_IS_OPEN)
Index("flow_open_by_update", flow.c.updated, flow.c.first_sequence, sqlite_where=_IS_OPEN, postgresql_where=_IS_OPEN)
Index("flow_open_by_sequence", flow.c.last_sequence, sqlite_where=_IS_OPEN, postgresql_where=_IS_OPEN)
Index("flow_retrying", flow.c.first_sequence, sqlite_where=_RETRIES, postgresql_where=_RETRIES)

flow_hour = Table(
    "flow_hour",
    metadata,
    Column("flow_type", Words(), primary_key=True),
    Column("hour", Instant, primary_key=True),
    Column("began", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""How many flows of a type began within an hour, and how many ended FAILED within it. `hour` is when it begins. It says
what the rows of `flow` say, and changes with them.
"""

unfolded = Table(
    "unfolded",
    metadata,
    Column("flow_type", Words(), primary_key=True),
    Column("flow_id", Words(), primary_key=True),
    Column("why", Words(SENTENCE), nullable=False),
    Column("sequence", SEQUENCE, nullable=False),
    Column("time", Instant, nullable=False),
    sqlite_with_rowid=False,
)
"""Messages without a flow that they could be folded into, and why: it has not begun, or its template is missing.
`sequence` is the position of the last one, stored at `time`.
"""

owed = Table(
    "owed",
    metadata,
    Column("first_sequence", SEQUENCE, primary_key=True, autoincrement=False),
    Column("step", Words(), primary_key=True),
    Column("agent", Words(), nullable=False),
    Column("runs", BigInteger, nullable=False),
    Column("attempt", BigInteger, nullable=False),
    Column("due", Instant),
    Index("owed_by_agent", "agent", "due"),
    Index("owed_by_due", "due"),
    sqlite_with_rowid=False,
)
"""What agents owe an open flow: one row for each step, with the number of its runs, the highest attempt and the first
time at which the coordinator steps in. An undo is owed by the step whose effect is undone.
"""

attribute = Table(
    "attribute",
    metadata,
    Column("first_sequence", SEQUENCE, primary_key=True, autoincrement=False),
    Column("name", Words(), primary_key=True),
    Column("text", Words()),
    Column("number", Double),
    Index("attribute_by_text", "name", "text", "first_sequence"),
    Index("attribute_by_number", "name", "number", "first_sequence"),
    sqlite_with_rowid=False,
)
"""A value that the flow's template declares for search. A number has both forms."""

approval = Table(
    "approval",
    metadata,
    Column("first_sequence", SEQUENCE, primary_key=True, autoincrement=False),
    Column("proposal_id", Words(), primary_key=True),
    Column("status", Words(), nullable=False),
    Column("step", Words(), nullable=False),
    Column("agent", Words(), nullable=False),
    Column("type", Words(), nullable=False),
    Column("requested", Instant),
    Column("expires", Instant),
    Index("approval_by_status", "status", "requested"),
    Index("approval_by_time", "requested", "first_sequence", "proposal_id"),
    sqlite_with_rowid=False,
)
"""A proposal that asked people. `status` is the end of its enum's name, such as PENDING."""

act = Table(
    "act",
    metadata,
    Column("first_sequence", SEQUENCE, primary_key=True, autoincrement=False),
    Column("act_id", Words(), primary_key=True),
    Column("status", Words(), nullable=False),
    Column("requested", Instant, nullable=False),
    Column("expires", Instant, nullable=False),
    Index("act_by_status", "status", "requested"),
    Index("act_by_time", "requested", "first_sequence", "act_id"),
    sqlite_with_rowid=False,
)
"""What one person asked for and another has to confirm. One that nobody confirmed in time stays PENDING."""

escalation = Table(
    "escalation",
    metadata,
    Column("first_sequence", SEQUENCE, primary_key=True, autoincrement=False),
    Column("escalation_id", Words(), primary_key=True),
    Column("cause", Words(), nullable=False),
    Column("step", Words(), nullable=False),
    Column("reason", Words(SENTENCE), nullable=False),
    Column("opened", Instant, nullable=False),
    Index("escalation_by_time", "opened"),
    sqlite_with_rowid=False,
)
"""A matter that waits for a person now."""

failure = Table(
    "failure",
    metadata,
    Column("sequence", SEQUENCE, primary_key=True, autoincrement=False),
    Column("first_sequence", SEQUENCE, nullable=False),
    Column("flow_type", Words(), nullable=False),
    Column("step", Words(), nullable=False),
    Column("agent", Words(), nullable=False),
    Column("error_class", Words(), nullable=False),
    Column("text", Words(SENTENCE), nullable=False),
    Column("signature", Words(), nullable=False),
    Column("time", Instant, nullable=False),
    Index("failure_by_flow", "first_sequence"),
    Index("failure_by_signature", "signature", "time"),
    Index("failure_by_class", "error_class", "first_sequence"),
    Index("failure_by_time", "time"),
)
"""A failed, timed-out or refused attempt that counts. Equal failures have equal signatures: step, error class, and the
text without what differs each time.
"""

divergence = Table(
    "divergence",
    metadata,
    Column("sequence", SEQUENCE, primary_key=True, autoincrement=False),
    Column("first_sequence", SEQUENCE, nullable=False),
    Column("flow_type", Words(), nullable=False),
    Column("agent", Words(), nullable=False),
    Column("kind", Words(), nullable=False),
    Column("type", Words(), nullable=False),
    Column("text", Words(SENTENCE), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("asks", Boolean, nullable=False),
    Column("time", Instant, nullable=False),
    Index("divergence_by_flow", "first_sequence"),
    Index("divergence_by_agent", "agent", "sequence"),
    Index("divergence_by_type", "flow_type", "sequence"),
)
"""What an agent did although the flow's template does not foresee it."""
