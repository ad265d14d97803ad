"""Which comparisons teach a policy: those of one guideline for a prompt, and no pair of answers in both directions.

A safety prompt may be judged twice, for safety and for helpfulness (paper §3.2.1): the answer that does what was asked
wins one and loses the other. Two reward models learn from both; one policy cannot.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Literal

from ayni.errors import BadInput
from ayni.records import Comparison, Demonstration, Dialog, Message, Task

Guideline = Literal["own", "helpfulness", "safety", "both"]
GUIDELINE = (
    "whose judgements to learn from: helpfulness, safety, both, or own: of each prompt the guideline of its task"
)


def taught(comparisons: Sequence[Comparison], guideline: Guideline, say: Callable[[str], None]) -> list[Comparison]:
    """The comparisons to learn from, in order; `say` is told how many were left out and why.

    Of two answers that were chosen both ways the choice stands that the prompt's own guideline makes more often, then
    the more frequent one; where they are even, neither. BadInput if nothing is left.
    """
    judged = [c for c in comparisons if under(guideline, c.task, c.prompt.task)]
    votes: dict[tuple[Dialog, frozenset[str]], Counter[str]] = defaultdict(Counter)
    for c in judged:
        # one vote of the prompt's own guideline outweighs all others
        votes[_pair(c)][c.chosen.strip()] += len(judged) + 1 if c.task == c.prompt.task else 1
    kept = [c for c in judged if votes[_pair(c)][c.chosen.strip()] > votes[_pair(c)][c.rejected.strip()]]
    if others := len(comparisons) - len(judged):
        say(f"{others} comparisons left out: made under the other guideline (task: {guideline})")
    if both_ways := len(judged) - len(kept):
        say(f"{both_ways} comparisons left out: the same two answers, chosen the other way")
    if comparisons and not kept:
        what = f"none of {len(comparisons)} comparisons is left to learn from"
        raise BadInput(what, field="task", fix="take task: helpfulness, safety or both")
    return kept


def chosen_answers(comparisons: Sequence[Comparison], say: Callable[[str], None]) -> list[Demonstration]:
    """Each answer that the guideline of its prompt chose, once; those that `dpo` learns from by default."""
    found = (
        Demonstration((*c.prompt.dialog, Message("assistant", c.chosen)), "last", c.source, c.finished_chosen)
        for c in taught(comparisons, "own", say)
    )
    return list(dict.fromkeys(found))


def under(guideline: Guideline, task: Task, prompt_task: Task) -> bool:
    """Whether a judgement made for `task` of an answer to a prompt of `prompt_task` is one to learn from."""
    return guideline == "both" or task == (prompt_task if guideline == "own" else guideline)


def _pair(c: Comparison) -> tuple[Dialog, frozenset[str]]:
    return c.prompt.dialog, frozenset((c.chosen.strip(), c.rejected.strip()))
