"""Argilla's exports: records with fields and responses (versions 1 and 2), and the flat rows of both.

Two or more answers: a ranking, a label or a "which is best" rating says which one is better, and a record gives
comparisons. One answer: ratings and thumbs of it are judgements. Questions that say neither are passed over; responses
that are not submitted (drafts, discarded ones) are left out and counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from ayni.formats.building import MOST_RANKED, make_comparison, make_prompt
from ayni.formats.fields import check_answer, check_text, finite
from ayni.formats.format import Format, with_prompts
from ayni.formats.pairing import liked
from ayni.formats.rows import Row, Skip
from ayni.formats.table_fields import ANSWERS, different, find_answers, find_dialog, known_fields
from ayni.records import Comparison, Judgement, Prompt

_OWN = {"id", "status", "_server_id", "external_id", "metadata", "vectors", "suggestions"}
_TIES = {"tie", "equal", "both", "neither", "same", "0"}
_FIRST, _SECOND = {"1", "a", "first", "left"}, {"2", "b", "second", "right"}
_BEST = re.compile(r"best|better|prefer|choose|chosen|winner", re.I)  # a rating 1 or 2 under such a name is a choice


@dataclass(frozen=True, slots=True)
class _Response:
    """What one person answered to one question; of the unnamed, `index` among the responses tells them apart."""

    user: str
    index: int
    question: str
    value: Any
    status: str | None


def argilla_pairs(row: Row) -> Iterator[Comparison | Skip]:
    """Of each person every two answers that they put in an order; ties give none."""
    fields = _fields(row.value)
    where = "fields" if "fields" in row.value else ""
    dialog = find_dialog(row, fields, where)
    own = known_fields(fields)
    for (user, _), responses in _by_person(row).items():
        if isinstance(responses, Skip):
            yield responses
            continue
        order = _order(row, responses, fields)
        if isinstance(order, Skip):
            yield order
            continue
        for better, worse in order:
            try:
                texts = different(row, fields, (better, worse), where)
            except Skip as skip:  # of this pair alone
                yield skip
                continue
            judged = row.saying({**own, "annotator": user})
            yield make_comparison(judged, dialog, *texts, f"{where}.prompt" if where else "prompt")


def argilla_judgements(row: Row) -> Iterator[Judgement | Skip]:
    """Of each person the rating or the thumb they gave the one answer."""
    prompt, answer = _one_answer(row)
    for responses in _by_person(row).values():
        if isinstance(responses, Skip):
            yield responses
            continue
        found: dict[str, tuple[float | None, str | None]] = {}
        for each in responses:
            if isinstance(each.value, int | float) and not isinstance(each.value, bool):
                found[each.question] = (finite(row, each.value, "responses"), None)
            elif isinstance(each.value, str) and (up := liked(each.value)) is not None:
                found[each.question] = (None, "up" if up else "down")
        if not found:
            yield Skip("no question rates the answer")
            continue
        _only(row, list(found), "rate the answer")
        ((score, label),) = found.values()
        yield Judgement(prompt, answer, score, label)


def _one_answer(row: Row) -> tuple[Prompt, str]:
    fields = _fields(row.value)
    where = "fields" if "fields" in row.value else ""
    own = row.saying(known_fields(fields))
    prompt = make_prompt(own, find_dialog(row, fields, where), where or "prompt")
    name = next((name for name in ANSWERS if name and name in fields), None)
    if name is None:
        raise row.error("no field holds the answer", where or None, fix=f"call it {', '.join(ANSWERS[:4])} …")
    field = f"{where}.{name}" if where else name
    return prompt, check_answer(row, prompt.dialog, check_text(row, fields[name], field), field)


# Who answered what, in each of the shapes


def _answered(part: Any) -> bool:
    """Whether a column holds version 1's responses to one question."""
    if not isinstance(part, list) or not part:
        return False
    return all(isinstance(each, dict) and {"user_id", "value"} <= each.keys() for each in part)


def _fields(value: Mapping[str, Any]) -> dict[str, Any]:
    """What was shown: the record's fields, or the columns of a flat row that hold text or a dialogue."""
    if isinstance(value.get("fields"), dict):
        return dict(value["fields"])
    return {
        name: part
        for name, part in value.items()
        if "." not in name and name not in _OWN and isinstance(part, str | list) and not _answered(part)
    }


def _responses(row: Row) -> Iterator[_Response]:
    responses = row.value.get("responses")
    if isinstance(responses, list):  # version 1: one object a person
        for index, each in enumerate(responses):
            if not isinstance(each, dict):
                raise row.error("expected an object", f"responses.{index}")
            values = each.get("values") or {}
            if not isinstance(values, dict):
                raise row.error("expected an object", f"responses.{index}.values")
            user, status = str(each.get("user_id") or ""), each.get("status")
            for question, answer in values.items():
                value = answer.get("value") if isinstance(answer, dict) else answer
                yield _Response(user, index, question, value, status)
            if not values:
                yield _Response(user, index, "", None, status)
        return
    if isinstance(responses, dict):  # version 2: a list a question
        for question, answers in responses.items():
            yield from _listed(row, question, answers, f"responses.{question}")
        return
    for name, part in row.value.items():
        if _answered(part):
            yield from _listed(row, name, part, name)
        elif name.endswith(".responses") and part is not None:
            count = len(_column(row, name))
            users, status = (_column(row, f"{name}.{which}", count) for which in ("users", "status"))
            for index, (value, user, state) in enumerate(zip(part, users, status, strict=True)):
                yield _Response(str(user or ""), index, name.removesuffix(".responses"), value, state)


def _column(row: Row, name: str, count: int | None = None) -> list[Any]:
    """A list under this name, of this length; without one, as many times nothing."""
    value = row.value.get(name)
    if value is None and count is not None:
        return [None] * count
    if not isinstance(value, list):
        raise row.error("expected a list", name)
    if count is not None and len(value) != count:
        raise row.error(f"{len(value)} of them for {count} responses", name)
    return value


def _listed(row: Row, question: str, answers: Any, field: str) -> Iterator[_Response]:
    for index, each in enumerate(answers if isinstance(answers, list) else [answers]):
        if not isinstance(each, dict):
            raise row.error("expected an object", f"{field}.{index}")
        yield _Response(str(each.get("user_id") or ""), index, question, each.get("value"), each.get("status"))


def _by_person(row: Row) -> dict[tuple[str, int], list[_Response] | Skip]:
    """Each person's submitted answers, or why theirs do not count; Skip where nobody has answered."""
    found: dict[tuple[str, int], list[_Response] | Skip] = {}
    for response in _responses(row):
        person = (response.user, 0 if response.user else response.index)
        if response.status not in (None, "submitted"):
            found[person] = Skip(f"a response that is {response.status}")
        else:
            mine = found.setdefault(person, [])
            if isinstance(mine, list) and response.value is not None:
                mine.append(response)
    if not found:
        raise Skip("no response")
    return found


# Which answer is better


def _order(row: Row, responses: list[_Response], fields: Mapping[str, Any]) -> list[tuple[str, str]] | Skip:
    """(better, worse) names of fields; a ranking counts before a label, a label before a rating."""
    for judge in (_ranking, _label, _rating):
        found = {each.question: order for each in responses if (order := judge(each, fields)) is not None}
        if found:
            _only(row, list(found), "say which answer is better")
            (order,) = found.values()
            if len(order) > MOST_RANKED:
                raise row.error(f"more than {MOST_RANKED} answers in one order", "responses")
            pairs = [(a, b) for (a, i), (b, j) in combinations(sorted(order, key=lambda o: o[1]), 2) if i < j]
            return pairs or Skip("a tie")
    return Skip("no question says which answer is better")


def _only(row: Row, questions: list[str], what: str) -> None:
    if len(questions) > 1:
        names = ", ".join(questions)
        raise row.error(f"several questions {what}: {names}", "responses", fix="leave one of them in the file")


Order = list[tuple[str, int]]  # names of fields with their ranks, 1 the best


def _ranking(response: _Response, fields: Mapping[str, Any]) -> Order | None:
    """Options in order, or with their ranks, as a list of both or as a list each."""
    value = response.value
    if isinstance(value, dict) and isinstance(value.get("value"), list) and isinstance(value.get("rank"), list):
        value = [{"value": v, "rank": r} for v, r in zip(value["value"], value["rank"], strict=False)]
    if not isinstance(value, list) or len(value) < 2:
        return None
    order: Order = []
    for position, option in enumerate(value, 1):
        named, rank = (option.get("value"), option.get("rank")) if isinstance(option, dict) else (option, position)
        field = _field(named, fields)
        if field is None:
            return None
        order.append((field, rank if type(rank) is int else position))
    return order


def _label(response: _Response, fields: Mapping[str, Any]) -> Order | None:
    """The name of the better one of two answers, or a word for a tie."""
    answers = find_answers(fields)
    if answers is None or not isinstance(response.value, str):
        return None
    word = _plain(response.value)
    if word in _TIES:
        return [(answers[0], 1), (answers[1], 1)]
    first = word in _FIRST | {_plain(answers[0])}
    if first or word in _SECOND | {_plain(answers[1])}:
        return [(answers[0], 1 if first else 2), (answers[1], 2 if first else 1)]
    return None


def _rating(response: _Response, fields: Mapping[str, Any]) -> Order | None:
    """1 or 2 of a question that asks which answer is best; 0 is a tie."""
    answers = find_answers(fields)
    value = response.value
    if answers is None or type(value) is not int or value not in (0, 1, 2) or not _BEST.search(response.question):
        return None
    ranks = {0: (1, 1), 1: (1, 2), 2: (2, 1)}[value]
    return [(answers[0], ranks[0]), (answers[1], ranks[1])]


def _field(option: Any, fields: Mapping[str, Any]) -> str | None:
    """The field that an option names, letter by letter or but for signs and case."""
    if not isinstance(option, str):
        return None
    if option in fields:
        return option
    like = [name for name in fields if _plain(name) == _plain(option)]
    return like[0] if len(like) == 1 else None


def _plain(text: str) -> str:
    return re.sub(r"[\W_]", "", text).casefold()


# How a record is known


def _is_argilla(row: Row) -> bool:
    if isinstance(row.value.get("fields"), dict) and row.has("responses"):
        return True
    return any(name.endswith(".responses") or _answered(part) for name, part in row.value.items())


def _holds_one_answer(row: Row) -> bool:
    if not _is_argilla(row):
        return False
    fields = _fields(row.value)
    return sum(name in fields for name in ANSWERS if name) == 1 and find_answers(fields) is None


ARGILLA_RATINGS = Format("argilla_ratings", _holds_one_answer, with_prompts("judgements", argilla_judgements))
ARGILLA = Format("argilla", _is_argilla, with_prompts("comparisons", argilla_pairs))
