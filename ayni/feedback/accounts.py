"""Annotators, and how they come in: one-use invitations and sessions, of whose tokens only hashes are kept."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta

from sqlalchemy import Connection, insert, select, update

from ayni.errors import BadInput
from ayni.feedback.entries import AccountRole, Annotator
from ayni.feedback.rows import annotator_from_row
from ayni.feedback.rules import check_person
from ayni.feedback.schema import annotators, invitations, sessions


def stamp(now: datetime) -> str:
    """UTC text of one width, so that times sort as text."""
    return now.isoformat(timespec="microseconds")


def enrol(connection: Connection, now: datetime, name: str, role: AccountRole) -> Annotator:
    """The annotator of that name, new or not; BadInput when it has another role or is retired."""
    check_person(name, role)
    row = connection.execute(select(annotators).where(annotators.c.name == name)).one_or_none()
    if row is None:
        person = Annotator(secrets.token_hex(6), name, role, stamp(now))
        connection.execute(insert(annotators).values(id=person.id, name=name, role=role, created_at=person.created_at))
        return person
    person = annotator_from_row(row)
    if person.role != role:
        raise BadInput(f"{name} is already here as {person.role}", field="role")
    return _not_retired(person)


def annotator(connection: Connection, annotator_id: str) -> Annotator:
    row = connection.execute(select(annotators).where(annotators.c.id == annotator_id)).one_or_none()
    if row is None:
        raise BadInput(f"nobody has the id {annotator_id!r}", field="annotator")
    return annotator_from_row(row)


def active(connection: Connection, annotator_id: str) -> Annotator:
    return _not_retired(annotator(connection, annotator_id))


def everyone(connection: Connection) -> list[Annotator]:
    """By name."""
    rows = connection.execute(select(annotators))
    return sorted((annotator_from_row(row) for row in rows), key=lambda person: person.name)


def retire(connection: Connection, now: datetime, annotator_id: str) -> None:
    """No more judgements, no way in; what was judged stays. Again changes nothing."""
    annotator(connection, annotator_id)
    mine = (annotators.c.id == annotator_id) & annotators.c.retired_at.is_(None)
    connection.execute(update(annotators).where(mine).values(retired_at=stamp(now)))


def invite(connection: Connection, now: datetime, name: str, role: AccountRole, days: float) -> str:
    person = enrol(connection, now, name, role)
    token = secrets.token_urlsafe(32)
    connection.execute(
        insert(invitations).values(
            token_hash=_hash(token),
            annotator_id=person.id,
            created_at=stamp(now),
            expires_at=stamp(now + timedelta(days=days)),
        )
    )
    return token


def accept(connection: Connection, now: datetime, token: str, days: float) -> str:
    """Uses the invitation up and begins a session; BadInput when it was used, is too old or never was."""
    open_one = (
        (invitations.c.token_hash == _hash(token))
        & invitations.c.used_at.is_(None)
        & (invitations.c.expires_at > stamp(now))
    )
    row = connection.execute(select(invitations.c.annotator_id).where(open_one)).one_or_none()
    if row is None:
        raise BadInput("this invitation was used or is out of date", field="invitation", fix="ask for a new one")
    connection.execute(update(invitations).where(open_one).values(used_at=stamp(now)))
    return begin_session(connection, now, row.annotator_id, days)


def begin_session(connection: Connection, now: datetime, annotator_id: str, days: float) -> str:
    active(connection, annotator_id)
    token = secrets.token_urlsafe(32)
    connection.execute(
        insert(sessions).values(
            token_hash=_hash(token),
            annotator_id=annotator_id,
            created_at=stamp(now),
            expires_at=stamp(now + timedelta(days=days)),
        )
    )
    return token


def session(connection: Connection, now: datetime, token: str) -> Annotator | None:
    """Whose session it is; None when it ended, is too old, never was, or its annotator is retired."""
    row = connection.execute(
        select(annotators)
        .join(sessions, sessions.c.annotator_id == annotators.c.id)
        .where(
            sessions.c.token_hash == _hash(token),
            sessions.c.ended_at.is_(None),
            sessions.c.expires_at > stamp(now),
            annotators.c.retired_at.is_(None),
        )
    ).one_or_none()
    return None if row is None else annotator_from_row(row)


def end_session(connection: Connection, now: datetime, token: str) -> None:
    mine = (sessions.c.token_hash == _hash(token)) & sessions.c.ended_at.is_(None)
    connection.execute(update(sessions).where(mine).values(ended_at=stamp(now)))


def _not_retired(person: Annotator) -> Annotator:
    if person.retired_at is not None:
        raise BadInput(f"{person.name} is retired", field="annotator")
    return person


def _hash(token: str) -> str:
    # Tokens are 32 random bytes, so a plain hash cannot be turned back; surrogates can come in with a cookie.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
