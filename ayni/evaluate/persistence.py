"""Whether a constraint of the first turn is kept to the twentieth, and what the models attend to meanwhile (§3.3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ayni.evaluate.items import Item
from ayni.model.attention_weights import strongest_attention
from ayni.model.transformer import Transformer
from ayni.records import Constraint, Dialog, Message, Prompt, Sample, attached, instruction
from ayni.seeds import rng
from ayni.text.chat import render, span_of
from ayni.text.tokenizer import Tokenizer
from ayni.village.constraints import HELD_KIND, without
from ayni.village.gold import Gold

SEEN, UNSEEN = "seen kinds", "unseen kind"
EVERY = 2  # turns 2, 4, 6 … as the paper's Table 30 has them


@dataclass(frozen=True, slots=True)
class Conversation:
    """What the user says of it: `told` (the constraint) stands before the first message alone."""

    prompt: Prompt
    constraint: Constraint
    told: str

    @property
    def axis(self) -> str:
        return UNSEEN if self.constraint.kind == HELD_KIND else SEEN


def conversations(
    prompts: Sequence[Prompt], constraints: Sequence[Constraint], count: int, seed: int
) -> list[Conversation]:
    """`count` of the kinds that training constraints are of and as many of the one that they are not, where there are
    constraints of either; every constraint as often as any other, half of them in short form."""
    found = []
    for axis in (SEEN, UNSEEN):
        of_axis = [c for c in constraints if (c.kind == HELD_KIND) == (axis == UNSEEN)]
        draw = rng(seed, "conversations", axis)
        talks, order = draw.permutation(len(prompts)), draw.permutation(len(of_axis))
        for i in range(count if of_axis else 0):
            prompt, constraint = prompts[talks[i % len(talks)]], of_axis[order[i % len(order)]]
            told = instruction([constraint], short=bool(i % 2))
            first, *others = prompt.dialog
            dialog = (attached(told, first), *others)
            found.append(Conversation(replace(prompt, id=f"{prompt.id} {axis} {i}", dialog=dialog), constraint, told))
    return found


def measured(turns: int) -> list[int]:
    """The turns that rows are about, the first aside: 2, 4, 6 …"""
    return list(range(EVERY, turns + 1, EVERY))


def kept_items(
    gold: Gold, asked: Sequence[Conversation], answers: Sequence[Sequence[Sample]], **where: Any
) -> list[Item]:
    """`obeyed` in the first turn, where the constraint stands, and `kept` in later ones: 1 or 0. A constraint is a
    cluster."""
    items = []
    for conversation, given in zip(asked, answers, strict=True):
        for turn in (1, *measured(len(given))) if given else ():
            value = float(gold.keeps(conversation.constraint, given[turn - 1].text))
            name, part = ("obeyed", "") if turn == 1 else ("kept", f"turn {turn}")
            items.append(_item(name, conversation, value, part, **where))
    return items


def kept_gains(ours: Iterable[Item], theirs: Iterable[Item], against: str) -> list[Item]:
    """`kept_gain`: of each turn of a conversation, whether this model keeps it less whether the other does."""
    other = {(item.id, item.part): item.value for item in theirs if item.metric == "kept"}
    return [
        replace(item, metric="kept_gain", value=item.value - other[item.id, item.part], against=against)
        for item in ours
        if item.metric == "kept" and (item.id, item.part) in other
    ]


def content_items(
    gold: Gold, asked: Sequence[Conversation], answers: Sequence[Sequence[Sample]], **where: Any
) -> list[Item]:
    """`talk_content`: how right the answers are, less the words that keep the constraint, in [0, 1]."""
    known = {question: fact.knowledge for fact in gold.village.scene.facts for question in fact.ask}
    items = []
    for conversation, given in zip(asked, answers, strict=True):
        questions = [m.content for m in conversation.prompt.dialog if m.role == "user"]
        for turn in measured(len(given)):
            answer = without(conversation.constraint, given[turn - 1].text)
            value = gold.content(known[questions[turn - 1]], answer)
            items.append(_item("talk_content", conversation, value, f"turn {turn}", **where))
    return items


def attention_items(
    models: Mapping[str, tuple[Transformer, Tokenizer]],
    asked: Sequence[Conversation],
    answers: Sequence[Sequence[Sample]],
    **where: Any,
) -> list[Item]:
    """`constraint_attention` (Figure 10): the largest weight over all layers and heads that goes to a token of the
    constraint, a mean over the columns that an answer is predicted at. All models read the same conversations."""
    items = []
    for conversation, given in zip(asked, answers, strict=True):
        dialog = dialog_of(conversation.prompt, given)
        for name, (model, tokenizer) in models.items():
            begin, end = span_of(conversation.told, dialog, tokenizer)
            sequence = render(dialog, tokenizer)
            strongest = strongest_attention(model, sequence.tokens, begin, end).tolist()
            answered = runs(sequence.mask)
            for turn in measured(len(answered)):
                columns = [strongest[t - 1] for t in answered[turn - 1]]
                value = sum(columns) / len(columns)
                items.append(_item("constraint_attention", conversation, value, f"turn {turn}", model=name, **where))
    return items


def dialog_of(prompt: Prompt, answers: Sequence[Sample]) -> Dialog:
    """The user's messages, each with the model's answer, as far as it came."""
    users = [m for m in prompt.dialog if m.role == "user"]
    pairs = zip(users, answers, strict=False)
    return tuple(m for user, sample in pairs for m in (user, Message("assistant", sample.text)))


def runs(mask: Sequence[bool]) -> list[range]:
    """Where the mask is True, in runs: the answers of a rendered dialogue."""
    edges = [i for i, (a, b) in enumerate(zip([False, *mask], [*mask, False], strict=True)) if a != b]
    return [range(begin, end) for begin, end in zip(edges[::2], edges[1::2], strict=True)]


def _item(metric: str, conversation: Conversation, value: float, part: str = "", **where: Any) -> Item:
    judge = None if metric == "constraint_attention" else "gold"
    return Item(
        metric, value, conversation.prompt.id, conversation.constraint.id, part, conversation.axis, judge, **where
    )
