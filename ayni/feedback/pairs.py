"""A batch's items from what model variants answered: pairs to compare, and gold checks among them (paper §3.2.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from ayni.feedback.entries import GoldCheck, Item
from ayni.records import Comparison, Prompt, Sample, Task, comparable, root_of
from ayni.seeds import rng, seed_of


@dataclass(frozen=True, slots=True)
class Asked:
    """An item, and which of its prompt's pairs it is (checks count down from −1)."""

    item: Item
    k: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How a batch is made; all that is drawn depends on (seed, stage, batch) and on what it is drawn for."""

    seed: int
    stage: str
    batch: str
    helpfulness_share: float  # of the safety prompts' pairs, judged by both guidelines
    heldout_share: float  # of the conversations
    overlap: int  # annotators for a pair …
    overlap_share: float  # … of this share of the pairs, one for the others
    max_tokens: int
    alike_share: float = 0.0  # of a prompt's pairs, matched so that their answers differ in little

    def toss(self, about: str, *key: object) -> float:
        return float(rng(self.seed, self.stage, about, *key).random())

    def id(self, prompt_id: str, k: int, task: Task) -> str:
        return f"{seed_of('item', self.seed, self.stage, self.batch, prompt_id, k, task):016x}"


def pairs(
    prompts: Sequence[Prompt], first: Sequence[Sequence[Sample]], second: Sequence[Sequence[Sample]], plan: Plan
) -> list[Asked]:
    """Every pair, once for each guideline it is judged by; equal and empty answers make none.

    `first` and `second` hold the two variants' answers to every prompt, side by side.
    """
    found = []
    roots = list(dict.fromkeys(root_of(prompt.dialog) for prompt in prompts))
    apart = set(roots[: round(plan.heldout_share * len(roots))])
    for prompt, ours, theirs in zip(prompts, first, second, strict=True):
        for k, (a, b) in enumerate(matched(ours, theirs, plan.alike_share)):
            if not comparable(a.text, b.text):
                continue
            overlap = plan.overlap if plan.toss("overlap", prompt.id, k) < plan.overlap_share else 1
            for task in guidelines_for(prompt, k, plan):
                item = Item(
                    plan.id(prompt.id, k, task),
                    prompt,
                    storable(a.text),
                    storable(b.text),
                    task,
                    a.model,
                    b.model,
                    _drawn(a, plan),
                    _drawn(b, plan),
                    overlap=overlap,
                    heldout=root_of(prompt.dialog) in apart,
                    batch_id=plan.batch,
                )
                found.append(Asked(item, k))
    return found


def matched(first: Sequence[Sample], second: Sequence[Sample], alike_share: float = 0.0) -> list[tuple[Sample, Sample]]:
    """Every answer of one variant with one of the other's (n): that share of them for sharing most of their words, the
    others as they were drawn.

    Two answers that differ in one fact teach a reward model the fact; two that differ in everything teach it style.
    """
    wanted = round(alike_share * len(first))
    likeness = {
        (i, j): _shared_words(a.text, b.text)
        for i, a in enumerate(first if wanted else ())
        for j, b in enumerate(second)
        if comparable(a.text, b.text)
    }
    taken: dict[int, int] = {}
    for i, j in sorted(likeness, key=lambda pair: (-likeness[pair], pair)):
        if len(taken) < wanted and i not in taken and j not in taken.values():
            taken[i] = j
    rest = iter(j for j in range(len(second)) if j not in taken.values())
    return [(a, second[taken[i] if i in taken else next(rest)]) for i, a in enumerate(first)]


def _shared_words(a: str, b: str) -> float:
    """|A ∩ B| / |A ∪ B| of their words."""
    ours, theirs = (set(text.lower().split()) for text in (a, b))
    return len(ours & theirs) / len(ours | theirs)


def guidelines_for(prompt: Prompt, k: int, plan: Plan) -> tuple[Task, ...]:
    if prompt.task == "helpfulness":
        return ("helpfulness",)
    return ("safety", "helpfulness") if plan.toss("task", prompt.id, k) < plan.helpfulness_share else ("safety",)


def with_checks(asked: Sequence[Asked], checks: Sequence[Comparison], share: float, plan: Plan) -> list[Asked]:
    """Gold checks spread evenly among the pairs, `share` for each pair: comparisons whose answer is known."""
    taken = {each.item.id for each in asked}
    order = rng(plan.seed, plan.stage, "checks").permutation(len(checks))
    wanted = min(len(checks), max(1, round(share * len(asked))))
    found = list(asked)
    for number, index in enumerate(order[:wanted]):
        check, k = checks[index], -1 - number
        first = plan.toss("check", number) < 0.5
        a, b = (check.chosen, check.rejected) if first else (check.rejected, check.chosen)
        gold = GoldCheck("a" if first else "b", check.rating)
        # as a pair's: whoever knows how ids are made must not find that one can only be a check's
        id = next(id for pair in count() if (id := plan.id(check.prompt.id, pair, check.task)) not in taken)
        taken.add(id)
        item = Item(id, check.prompt, storable(a), storable(b), check.task, gold=gold)
        found.insert((number + 1) * len(found) // (wanted + 1), Asked(item, k))
    return found


def storable(text: str) -> str:
    """A model may spell NUL, which no database keeps in text."""
    return text.replace("\0", "\ufffd")


def _drawn(sample: Sample, plan: Plan) -> dict[str, Any]:
    drawn = {"temperature": sample.temperature, "top_p": 1.0, "max_tokens": plan.max_tokens, "seed": sample.seed}
    return drawn | {"finished": sample.finished}
