"""Which of two models answers better, by a judge that is asked in both orders (paper §3.4.2).

A judge that changes its mind when the answers change places has not decided: that counts as a tie, and how often it
happens is reported. The paper only randomises the order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ayni.evaluate.parts import parts, thirds
from ayni.evaluate.results import Result, result
from ayni.maths.clustered import clustered_share, length_controlled_share
from ayni.maths.statistics import Estimate
from ayni.records import Prompt, cluster_of, turns_of

Judge = Callable[[Prompt, str, str], float]  # 1: the first answer is better, 0: the second, ½: neither


@dataclass(frozen=True, slots=True)
class Outcome:
    """One prompt's verdict. `score` is a's: 1, ½ or 0; `first` how a fared when shown first, `second` when second.

    `first` and `second` are None where the judge scores answers alone and so has no order. `cluster` is what the prompt
    stands or falls with. `longer`: characters by which a's answer is longer than b's. `turns`: messages of the user's;
    `asked`: characters of the whole dialogue. None where nobody has said.
    """

    prompt_id: str
    cluster: str
    axis: str
    category: str
    score: float
    first: float | None = None
    second: float | None = None
    longer: int | None = None
    turns: int | None = None
    asked: int | None = None

    @classmethod
    def of(
        cls,
        prompt: Prompt,
        score: float,
        *,
        axis: str | None = None,
        first: float | None = None,
        second: float | None = None,
        longer: int | None = None,
    ) -> Outcome:
        """`axis` defaults to the prompt's task."""
        return cls(
            prompt.id,
            cluster_of(prompt),
            axis or prompt.task,
            prompt.category,
            score,
            first,
            second,
            longer,
            turns=turns_of(prompt.dialog),
            asked=sum(len(message.content) for message in prompt.dialog),
        )


@dataclass(frozen=True, slots=True)
class Tally:
    """Model a's record against b."""

    wins: int
    ties: int
    losses: int

    @property
    def n(self) -> int:
        return self.wins + self.ties + self.losses


@dataclass(frozen=True, slots=True)
class PositionBias:
    """How a judge reacts to order: share of prompts with one verdict in both orders, and the first place's win rate.

    An unbiased judge gives `first_place` ½ whatever the models are worth, as each answer stands first once.
    """

    consistency: Estimate
    first_place: Estimate


def compare(
    prompts: Sequence[Prompt],
    answers_a: Sequence[str],
    answers_b: Sequence[str],
    judge: Judge,
    *,
    axis: str | None = None,
) -> list[Outcome]:
    """One outcome a prompt, in order; `axis` defaults to each prompt's task. Equal answers tie without asking.

    Raises ValueError when the lists differ in length or the judge says anything but 1, ½ and 0.
    """
    outcomes = []
    for prompt, a, b in zip(prompts, answers_a, answers_b, strict=True):
        first = 0.5 if a == b else _verdict(judge, prompt, a, b)
        second = 0.5 if a == b else 1 - _verdict(judge, prompt, b, a)
        score, longer = first if first == second else 0.5, len(a) - len(b)
        outcomes.append(Outcome.of(prompt, score, axis=axis, first=first, second=second, longer=longer))
    return outcomes


def compare_scores(
    prompts: Sequence[Prompt],
    scores_a: Sequence[float],
    scores_b: Sequence[float],
    *,
    tie: float = 0.0,
    axis: str | None = None,
    longer: Sequence[int] | None = None,
) -> list[Outcome]:
    """The same from a judge that scores each answer alone: |a − b| ≤ `tie` is a tie. `longer` as in Outcome."""
    outcomes = []
    known: Sequence[int | None] = [None] * len(prompts) if longer is None else longer
    for prompt, a, b, more in zip(prompts, scores_a, scores_b, known, strict=True):
        score = 0.5 if abs(a - b) <= tie else float(a > b)
        outcomes.append(Outcome.of(prompt, score, axis=axis, longer=more))
    return outcomes


def tally(outcomes: Sequence[Outcome]) -> Tally:
    scores = [outcome.score for outcome in outcomes]
    return Tally(scores.count(1.0), scores.count(0.5), scores.count(0.0))


def rate(outcomes: Sequence[Outcome], level: float = 0.95) -> Estimate:
    """Ties out: wins / (wins + losses). `n` counts decided prompts only."""
    decided = [o for o in outcomes if o.score != 0.5]
    return clustered_share([o.score for o in decided], [o.cluster for o in decided], level)


def half_rate(outcomes: Sequence[Outcome], level: float = 0.95) -> Estimate:
    """Ties as half a win: (wins + ties/2) / n."""
    return clustered_share([o.score for o in outcomes], [o.cluster for o in outcomes], level)


def length_controlled(outcomes: Sequence[Outcome], level: float = 0.95) -> Estimate | None:
    """The share that would be won if answers were equally long; None where a length is not known."""
    longer = [o.longer for o in outcomes if o.longer is not None]
    if len(longer) < len(outcomes):
        return None
    return length_controlled_share([o.score for o in outcomes], longer, [o.cluster for o in outcomes], level)


def by_axis(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Axes in the order they first appear."""
    axes = dict.fromkeys(outcome.axis for outcome in outcomes)
    return {axis: [o for o in outcomes if o.axis == axis] for axis in axes}


def by_category(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Categories in alphabetical order."""
    names = sorted({outcome.category for outcome in outcomes})
    return {name: [o for o in outcomes if o.category == name] for name in names}


def by_prompt(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, list[Outcome]]]:
    """By the turns and the length, in thirds, of what was asked; nothing of outcomes that do not say."""
    turns = [o.turns for o in outcomes if o.turns is not None]
    lengths = [o.asked for o in outcomes if o.asked is not None]
    if len(turns) == len(lengths) == len(outcomes):
        for name, at in parts({"turns": [str(n) for n in turns], "length": thirds(lengths)}):
            yield name, [outcomes[i] for i in at]


def position_bias(outcomes: Sequence[Outcome], level: float = 0.95) -> PositionBias | None:
    """None when the judge was never asked in two orders."""
    asked = [(o.first, o.second, o.cluster) for o in outcomes if o.first is not None and o.second is not None]
    if not asked:
        return None
    same = clustered_share([float(first == second) for first, second, _ in asked], [c for _, _, c in asked], level)
    # how the answer shown first fared; the two verdicts on a prompt belong together
    shown = [(score, c) for first, second, c in asked for score in (first, 1 - second) if score != 0.5]
    return PositionBias(same, clustered_share([score for score, _ in shown], [c for _, c in shown], level))


def win_rate_results(
    outcomes: Sequence[Outcome],
    *,
    model: str,
    against: str,
    judge: str,
    split: str,
    seed: int | None = None,
    level: float = 0.95,
) -> list[Result]:
    """Rows for results.json, per axis: `win_rate`, `win_rate_half`, both `_length_controlled` where lengths are known,
    `win_rate:CATEGORY` where there are several, `win_rate_by_turns:N` and `win_rate_by_length:short`, `middle`, `long`
    (paper Figure 31), and `judge_consistency` and `first_place_rate` where the judge saw two orders."""
    rows = []
    for axis, mine in by_axis(outcomes).items():

        def row(metric: str, of: Sequence[Outcome], estimate: Estimate, axis: str = axis) -> Result:
            count = tally(of)
            return result(
                metric,
                estimate,
                axis=axis,
                judge=judge,
                model=model,
                against=against,
                split=split,
                n=count.n,
                clusters=len({o.cluster for o in of}),
                wins=count.wins,
                ties=count.ties,
                losses=count.losses,
                seed=seed,
            )

        rows += [row("win_rate", mine, rate(mine, level))]
        rows += [row("win_rate_half", mine, half_rate(mine, level))]
        decided = [o for o in mine if o.score != 0.5]
        for metric, of in (("win_rate", decided), ("win_rate_half", mine)):
            if (controlled := length_controlled(of, level)) is not None:
                rows += [row(f"{metric}_length_controlled", mine, controlled)]
        categories = by_category(mine)
        if len(categories) > 1:
            rows += [row(f"win_rate:{name}", part, rate(part, level)) for name, part in categories.items()]
        for name, part in by_prompt(mine):
            rows += [row(f"win_rate_{name}", part, rate(part, level))]
        bias = position_bias(mine, level)
        if bias is not None:
            where = {"axis": axis, "judge": judge, "model": model, "against": against, "split": split}
            rows += [result("judge_consistency", bias.consistency, seed=seed, **where)]
            rows += [result("first_place_rate", bias.first_place, seed=seed, **where)]
    return rows


def _verdict(judge: Judge, prompt: Prompt, first: str, second: str) -> float:
    verdict = float(judge(prompt, first, second))
    if verdict not in (0.0, 0.5, 1.0):
        raise ValueError(f"the judge said {verdict} of prompt {prompt.id}; it may say 1, 0.5 or 0")
    return verdict
