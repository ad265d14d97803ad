"""The first schema. Written out by hand: what a released version made must not follow later changes of schema.py."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

SQLITE_NEVER = "CREATE TRIGGER {table}_never_{verb} BEFORE {verb} ON {table} BEGIN SELECT RAISE(ABORT, '{what}'); END"
POSTGRESQL_NEVER = "CREATE TRIGGER {table}_never_{verb} BEFORE {verb} ON {table} EXECUTE FUNCTION {refuse}('{what}')"
POSTGRESQL_REFUSE = """
    CREATE FUNCTION ayni_feedback_refuse() RETURNS trigger LANGUAGE plpgsql
    AS 'BEGIN RAISE EXCEPTION USING MESSAGE = TG_ARGV[0]; END'
"""


def upgrade() -> None:
    _people()
    _batches()
    _judgements()
    _sums()
    _never_changed()


def _people() -> None:
    op.create_table(
        "annotators",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("retired_at", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_annotators"),
        sa.CheckConstraint("role IN ('annotator', 'admin')", name="ck_annotators_role"),
        sa.UniqueConstraint("name", name="uq_annotators_name"),
    )
    for table, last in (("invitations", "used_at"), ("sessions", "ended_at")):
        op.create_table(
            table,
            sa.Column("token_hash", sa.Text, nullable=False),
            sa.Column("annotator_id", sa.Text, nullable=False),
            sa.Column("created_at", sa.Text, nullable=False),
            sa.Column("expires_at", sa.Text, nullable=False),
            sa.Column(last, sa.Text),
            sa.PrimaryKeyConstraint("token_hash", name=f"pk_{table}"),
            sa.ForeignKeyConstraint(["annotator_id"], ["annotators.id"], name=f"fk_{table}_annotator_id"),
        )


def _batches() -> None:
    op.create_table(
        "batches",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("task_mix", sa.Text, nullable=False),
        sa.Column("guidelines", sa.Text, nullable=False),
        sa.Column("settings", sa.Text, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("closed_at", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_batches"),
    )
    op.create_table(
        "dialogues",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("batch_id", sa.Text, nullable=False),
        sa.Column("annotator_id", sa.Text, nullable=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("ended_at", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_dialogues"),
        sa.CheckConstraint("task IN ('helpfulness', 'safety')", name="ck_dialogues_task"),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name="fk_dialogues_batch_id"),
        sa.ForeignKeyConstraint(["annotator_id"], ["annotators.id"], name="fk_dialogues_annotator_id"),
    )
    op.create_index("ix_dialogues_annotator_id_batch_id", "dialogues", ["annotator_id", "batch_id"])
    op.create_table(
        "items",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("batch_id", sa.Text, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("overlap", sa.Integer, nullable=False),
        sa.Column("heldout", sa.Boolean, nullable=False),
        sa.Column("dialogue_id", sa.Text),
        sa.Column("turn", sa.Integer),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("gold", sa.Text),
        sa.Column("model_a", sa.Text, nullable=False),
        sa.Column("model_b", sa.Text, nullable=False),
        sa.Column("sampling_a", sa.Text, nullable=False),
        sa.Column("sampling_b", sa.Text, nullable=False),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("answer_a", sa.Text, nullable=False),
        sa.Column("answer_b", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_items"),
        sa.CheckConstraint("task IN ('helpfulness', 'safety')", name="ck_items_task"),
        sa.CheckConstraint("overlap > 0", name="ck_items_overlap"),
        sa.CheckConstraint("(dialogue_id IS NULL) = (turn IS NULL)", name="ck_items_turn"),
        sa.UniqueConstraint("batch_id", "position", name="uq_items_batch_id_position"),
        sa.UniqueConstraint("dialogue_id", "turn", name="uq_items_dialogue_id_turn"),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name="fk_items_batch_id"),
        sa.ForeignKeyConstraint(["dialogue_id"], ["dialogues.id"], name="fk_items_dialogue_id"),
    )


def _judgements() -> None:
    op.create_table(
        "judgements",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("submission", sa.Text, nullable=False),
        sa.Column("item_id", sa.Text, nullable=False),
        sa.Column("annotator_id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("preferred", sa.Text),
        sa.Column("rating", sa.Text),
        sa.Column("safety_a", sa.Boolean),
        sa.Column("safety_b", sa.Boolean),
        sa.Column("reason", sa.Text),
        sa.Column("swapped", sa.Boolean, nullable=False),
        sa.Column("seconds", sa.Double),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("replaces", sa.Integer),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_judgements"),
        sa.CheckConstraint("kind IN ('judged', 'skipped', 'flagged', 'withdrawn')", name="ck_judgements_kind"),
        sa.CheckConstraint("preferred IN ('a', 'b')", name="ck_judgements_preferred"),
        sa.CheckConstraint("(kind = 'judged') = (preferred IS NOT NULL)", name="ck_judgements_judged"),
        sa.CheckConstraint("rating IS NULL OR preferred IS NOT NULL", name="ck_judgements_rating"),
        sa.CheckConstraint(
            "preferred IS NULL OR safety_a = safety_b OR (preferred = 'a') = safety_a", name="ck_judgements_safety"
        ),
        sa.CheckConstraint("replaces < id", name="ck_judgements_replaces"),
        sa.UniqueConstraint("replaces", name="uq_judgements_replaces"),
        sa.UniqueConstraint("submission", name="uq_judgements_submission"),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"], name="fk_judgements_item_id"),
        sa.ForeignKeyConstraint(["annotator_id"], ["annotators.id"], name="fk_judgements_annotator_id"),
        sa.ForeignKeyConstraint(["replaces"], ["judgements.id"], name="fk_judgements_replaces"),
        sqlite_autoincrement=True,
    )


def _sums() -> None:
    op.create_table(
        "standing",
        sa.Column("item_id", sa.Text, nullable=False),
        sa.Column("annotator_id", sa.Text, nullable=False),
        sa.Column("batch_id", sa.Text, nullable=False),
        sa.Column("judgement_id", sa.Integer, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("item_id", "annotator_id", name="pk_standing"),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"], name="fk_standing_item_id"),
        sa.ForeignKeyConstraint(["annotator_id"], ["annotators.id"], name="fk_standing_annotator_id"),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name="fk_standing_batch_id"),
        sa.UniqueConstraint("judgement_id", name="uq_standing_judgement_id"),
        sa.ForeignKeyConstraint(["judgement_id"], ["judgements.id"], name="fk_standing_judgement_id"),
    )
    op.create_index("ix_standing_annotator_id_judgement_id", "standing", ["annotator_id", "judgement_id"])
    op.create_index("ix_standing_batch_id_annotator_id_kind", "standing", ["batch_id", "annotator_id", "kind"])
    op.create_table(
        "tallies",
        sa.Column("item_id", sa.Text, nullable=False),
        sa.Column("batch_id", sa.Text, nullable=False),
        sa.Column("lane", sa.Text, nullable=False),
        sa.Column("wanting", sa.Boolean, nullable=False),
        sa.Column("judged", sa.Integer, nullable=False),
        sa.Column("overlap", sa.Integer, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("item_id", name="pk_tallies"),
        sa.CheckConstraint("lane IN ('queue', 'check', 'dialogue')", name="ck_tallies_lane"),
        sa.CheckConstraint("judged >= 0", name="ck_tallies_judged"),
        sa.ForeignKeyConstraint(["item_id"], ["items.id"], name="fk_tallies_item_id"),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name="fk_tallies_batch_id"),
    )
    op.create_index(
        "ix_tallies_batch_id_lane_wanting_judged_position",
        "tallies",
        ["batch_id", "lane", "wanting", "judged", "position"],
    )


def _never_changed() -> None:
    """What people said, and of what: the database itself refuses to change it."""
    verbs, statement = ["update", "delete"], SQLITE_NEVER
    if op.get_bind().dialect.name == "postgresql":
        verbs, statement = [*verbs, "truncate"], POSTGRESQL_NEVER
        op.execute(POSTGRESQL_REFUSE)
    for table in ("items", "judgements"):
        for verb in verbs:
            what = f"{table} are never changed"
            op.execute(statement.format(table=table, verb=verb, what=what, refuse="ayni_feedback_refuse"))
