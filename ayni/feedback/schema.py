"""The tables of the preference store.

`judgements` is a log: rows are added, never changed. `standing` and `tallies` are what the log adds up to, kept in the
same transaction so that no request reads the log from its start; `check` compares them with it. The migrations also
make the database refuse any change to `items` and `judgements`, whoever connects to it.
"""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

VERSION_TABLE = "ayni_feedback_version"  # our own name: another program's alembic table is not taken for ours

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

annotators = Table(
    "annotators",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("role", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("retired_at", Text),
    CheckConstraint("role IN ('annotator', 'admin')", name="role"),
)

invitations = Table(
    "invitations",
    metadata,
    Column("token_hash", Text, primary_key=True),
    Column("annotator_id", Text, ForeignKey("annotators.id"), nullable=False),
    Column("created_at", Text, nullable=False),
    Column("expires_at", Text, nullable=False),
    Column("used_at", Text),
)

sessions = Table(
    "sessions",
    metadata,
    Column("token_hash", Text, primary_key=True),
    Column("annotator_id", Text, ForeignKey("annotators.id"), nullable=False),
    Column("created_at", Text, nullable=False),
    Column("expires_at", Text, nullable=False),
    Column("ended_at", Text),
)

batches = Table(
    "batches",
    metadata,
    Column("id", Text, primary_key=True),
    Column("task_mix", Text, nullable=False),
    Column("guidelines", Text, nullable=False),
    Column("settings", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("closed_at", Text),
)

dialogues = Table(
    "dialogues",
    metadata,
    Column("id", Text, primary_key=True),
    Column("batch_id", Text, ForeignKey("batches.id"), nullable=False),
    Column("annotator_id", Text, ForeignKey("annotators.id"), nullable=False),
    Column("task", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("ended_at", Text),
    CheckConstraint("task IN ('helpfulness', 'safety')", name="task"),
    Index(None, "annotator_id", "batch_id"),
)

items = Table(
    "items",
    metadata,
    Column("id", Text, primary_key=True),
    Column("batch_id", Text, ForeignKey("batches.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("task", Text, nullable=False),
    Column("overlap", Integer, nullable=False),
    Column("heldout", Boolean, nullable=False),
    Column("dialogue_id", Text, ForeignKey("dialogues.id")),
    Column("turn", Integer),
    Column("created_at", Text, nullable=False),
    Column("gold", Text),
    Column("model_a", Text, nullable=False),
    Column("model_b", Text, nullable=False),
    Column("sampling_a", Text, nullable=False),
    Column("sampling_b", Text, nullable=False),
    Column("prompt", Text, nullable=False),  # the long texts last: SQLite reads a row from its start
    Column("answer_a", Text, nullable=False),
    Column("answer_b", Text, nullable=False),
    CheckConstraint("task IN ('helpfulness', 'safety')", name="task"),
    CheckConstraint("overlap > 0", name="overlap"),
    CheckConstraint("(dialogue_id IS NULL) = (turn IS NULL)", name="turn"),
    UniqueConstraint("batch_id", "position"),
    UniqueConstraint("dialogue_id", "turn"),
)

judgements = Table(
    "judgements",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("submission", Text, nullable=False, unique=True),
    Column("item_id", Text, ForeignKey("items.id"), nullable=False),
    Column("annotator_id", Text, ForeignKey("annotators.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("preferred", Text),
    Column("rating", Text),
    Column("safety_a", Boolean),
    Column("safety_b", Boolean),
    Column("reason", Text),
    Column("swapped", Boolean, nullable=False),
    Column("seconds", Double),
    Column("source", Text, nullable=False),
    Column("replaces", Integer, ForeignKey("judgements.id")),
    Column("created_at", Text, nullable=False),
    CheckConstraint("kind IN ('judged', 'skipped', 'flagged', 'withdrawn')", name="kind"),
    CheckConstraint("preferred IN ('a', 'b')", name="preferred"),
    CheckConstraint("(kind = 'judged') = (preferred IS NOT NULL)", name="judged"),
    CheckConstraint("rating IS NULL OR preferred IS NOT NULL", name="rating"),
    CheckConstraint("preferred IS NULL OR safety_a = safety_b OR (preferred = 'a') = safety_a", name="safety"),
    CheckConstraint("replaces < id", name="replaces"),
    UniqueConstraint("replaces"),  # a row is corrected or withdrawn once: histories never fork
    sqlite_autoincrement=True,
)

# One row per (item, annotator) with something to say: the last row of their log, unless it withdraws.
standing = Table(
    "standing",
    metadata,
    Column("item_id", Text, ForeignKey("items.id"), primary_key=True),
    Column("annotator_id", Text, ForeignKey("annotators.id"), primary_key=True),
    Column("batch_id", Text, ForeignKey("batches.id"), nullable=False),
    Column("judgement_id", Integer, ForeignKey("judgements.id"), nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Index(None, "annotator_id", "judgement_id"),
    Index(None, "batch_id", "annotator_id", "kind"),
)

# One narrow row per item. `judged`: judgements that stand; `wanting`: fewer than its overlap. `lane`: the queue that
# all annotators share, gold checks, and the turns of a dialogue, which only its writer judges.
tallies = Table(
    "tallies",
    metadata,
    Column("item_id", Text, ForeignKey("items.id"), primary_key=True),
    Column("batch_id", Text, ForeignKey("batches.id"), nullable=False),
    Column("lane", Text, nullable=False),
    Column("wanting", Boolean, nullable=False),
    Column("judged", Integer, nullable=False),
    Column("overlap", Integer, nullable=False),
    Column("position", Integer, nullable=False),
    CheckConstraint("lane IN ('queue', 'check', 'dialogue')", name="lane"),
    CheckConstraint("judged >= 0", name="judged"),
    Index(None, "batch_id", "lane", "wanting", "judged", "position"),
)
