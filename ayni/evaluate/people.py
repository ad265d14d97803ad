"""People as judges of two finished models: what they said of pairs of answers, and what they are to be asked.

Answers are shown blind, in an order of each annotator's own, on the annotation page; "negligibly better, or unsure"
is a tie. Several people decide a pair by more than half of them (the paper asks three, §3.4.2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ayni.errors import BadInput
from ayni.evaluate.win_rate import Outcome
from ayni.feedback.entries import Item, Judged
from ayni.feedback.pairs import storable
from ayni.records import Comparison, Finished, Prompt, Rating, Sample, comparable
from ayni.seeds import seed_of
from ayni.text.chat import answer_tokens
from ayni.text.tokenizer import Tokenizer

PEOPLE = "people"
UNSURE: Rating = "negligibly_better_or_unsure"


@dataclass(frozen=True, slots=True)
class Contest:
    """One model's answer to a prompt (`ours`) and the other's. `votes`: of each person who judged them, 1 where ours is
    better, 0 where theirs is, ½ where neither."""

    prompt: Prompt
    ours: str
    theirs: str
    votes: tuple[float, ...] = ()
    finished: tuple[Finished | None, Finished | None] = (None, None)

    @property
    def verdict(self) -> float | None:
        """What more than half of them said, else ½; None where nobody has said anything.

        Equal answers are a tie and silence loses, unasked: nobody is shown such pairs.
        """
        if not comparable(self.ours, self.theirs):
            return 0.5 if self.ours.strip() == self.theirs.strip() else float(bool(self.ours.strip()))
        if not self.votes:
            return None
        vote, count = Counter(self.votes).most_common(1)[0]
        return vote if 2 * count > len(self.votes) else 0.5


def outcomes_of(contests: Iterable[Contest]) -> list[Outcome | None]:
    """One a contest, in order; None where nobody has judged it."""
    return [
        None
        if (score := each.verdict) is None
        else Outcome.of(each.prompt, score, longer=len(each.ours) - len(each.theirs))
        for each in contests
    ]


# From records


def contests_in(comparisons: Iterable[Comparison], model: str, against: str) -> list[Contest]:
    """Every pair of answers of these two models, in the order in which it first appears, with what was said of it.

    BadInput where no comparison is of the two.
    """
    if model == against:
        what = f"both models are called {model}, and comparisons know them by name"
        raise BadInput(what, field="people", fix="rename one of their directories before the answers are drawn")
    found: dict[tuple[Prompt, str, str], Contest] = {}
    others = Counter[tuple[str, ...]]()
    for comparison in comparisons:
        names = (comparison.model_chosen, comparison.model_rejected)
        if {*names} != {model, against}:
            others[tuple(sorted(names))] += 1
            continue
        won = names[0] == model
        sides = [
            (comparison.chosen, comparison.finished_chosen),
            (comparison.rejected, comparison.finished_rejected),
        ]
        (ours, ended), (theirs, their_end) = sides if won else sides[::-1]
        prompt = replace(comparison.prompt, task=comparison.task)
        before = found.get((prompt, ours, theirs)) or Contest(prompt, ours, theirs, (), (ended, their_end))
        vote = 0.5 if comparison.rating == UNSURE else float(won)
        found[prompt, ours, theirs] = replace(before, votes=(*before.votes, vote))
    if not found:
        there = ", ".join(" and ".join(name or "(no name)" for name in names) for names in others)
        what = f"no comparison is of {model} and {against}"
        raise BadInput(what, field="people", fix=f"it has those of {there}" if there else None)
    return list(found.values())


def answers_in(contests: Iterable[Contest], role: str, tokenizer: Tokenizer, name: str) -> list[Sample]:
    """The answers of the "model" or of the one it stands "against", as people have read them; log-probs are zeros."""
    side = 0 if role == "model" else 1
    found = []
    for contest in contests:
        prompt, text, ended = contest.prompt, (contest.ours, contest.theirs)[side], contest.finished[side]
        sequence = answer_tokens(prompt.dialog, text, tokenizer, ended)
        start = sequence.mask.index(True)
        before, tokens = tuple(sequence.tokens[:start]), tuple(sequence.tokens[start:])
        unknown = (0.0,) * len(tokens)
        found.append(Sample(prompt.id, prompt.task, before, tokens, unknown, text, ended or "stop", name))
    return found


# From a store


def items_of(
    prompts: Sequence[Prompt], ours: Sequence[Sample], theirs: Sequence[Sample], *, batch: str, overlap: int, seed: int
) -> list[Item]:
    """What people are to be asked: every pair that differs, to be judged by `overlap` of them."""
    return [
        Item(
            f"{seed_of('contest', seed, batch, prompt.id):016x}",
            prompt,
            storable(a.text),
            storable(b.text),
            prompt.task,
            a.model,
            b.model,
            {"temperature": a.temperature, "seed": a.seed, "finished": a.finished},
            {"temperature": b.temperature, "seed": b.seed, "finished": b.finished},
            overlap=overlap,
            batch_id=batch,
        )
        for prompt, a, b in zip(prompts, ours, theirs, strict=True)
        if comparable(storable(a.text), storable(b.text))
    ]


def contests_of(
    prompts: Sequence[Prompt], ours: Sequence[Sample], theirs: Sequence[Sample], judged: Iterable[Judged]
) -> list[Contest]:
    """A contest a prompt, in order, with what stands in the store of the items made of them."""
    votes: dict[str, list[float]] = {}
    for each in judged:
        if each.entry.kind == "judged" and each.entry.preferred is not None:
            vote = 0.5 if each.entry.rating == UNSURE else float(each.entry.preferred == "a")
            votes.setdefault(each.item.prompt.id, []).append(vote)
    return [
        Contest(prompt, a.text, b.text, tuple(votes.get(prompt.id, ())), (a.finished, b.finished))
        for prompt, a, b in zip(prompts, ours, theirs, strict=True)
    ]
