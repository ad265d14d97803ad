"""PandaLM: three votes on two answers to an instruction."""

from __future__ import annotations

from collections.abc import Iterator

from ayni.formats.building import SAME, make_comparison
from ayni.formats.fields import instruction_dialog, optional_text
from ayni.formats.format import Format, with_prompts
from ayni.formats.rows import Row, Skip
from ayni.records import Comparison, Rating

# (votes for the winner, votes for the loser) of three annotators; the rest are ties.
_AGREEMENT: dict[tuple[int, int], Rating] = {
    (3, 0): "significantly_better",
    (2, 0): "better",
    (2, 1): "slightly_better",
    (1, 0): "negligibly_better_or_unsure",
}


def pandalm_pairs(row: Row) -> Iterator[Comparison]:
    """PandaLM: three votes (1, 2, or 0 for a tie) become a degree by agreement: 3–0 significantly better,
    2–0 better, 2–1 slightly better, 1–0 negligibly better. Ties are left out and counted, and so are empty answers
    and instructions, and answers that are not text.
    """
    votes = [row.value.get(f"annotator{n}") for n in (1, 2, 3)]
    for n, vote in enumerate(votes, 1):
        if type(vote) is not int or vote not in (0, 1, 2):
            raise row.error(f"{vote!r} is not one of 0, 1, 2", f"annotator{n}")
    first, second = votes.count(1), votes.count(2)
    if first == second:
        raise Skip("a tie")
    answers = [row.value.get(f"response{n}") for n in (1, 2)]
    texts = [answer for answer in answers if isinstance(answer, str)]
    if len(texts) < 2:
        raise Skip("an answer is not text")
    if not all(text.strip() for text in texts):
        raise Skip("an answer is empty")
    if texts[0].strip() == texts[1].strip():
        raise Skip(SAME)
    if not str(row.value.get("instruction", "")).strip():
        raise Skip("the instruction is empty")
    names = optional_text(row, "cmp_key").split("_")
    models = names if len(names) == 2 else ["", ""]
    if second > first:
        texts, models = texts[::-1], models[::-1]
    rating = _AGREEMENT[max(first, second), min(first, second)]
    value = {**row.value, "rating": rating, "model_chosen": models[0], "model_rejected": models[1]}
    judged = row.saying(value)
    yield make_comparison(judged, instruction_dialog(row), texts[0], texts[1], "instruction")


PANDALM = Format("pandalm", lambda row: row.has("response1", "response2"), with_prompts("comparisons", pandalm_pairs))
