"""What the metrics of reinforcement learning warn of, in words: what was seen, why that happens, what to do.

A pure function of the lines of metrics.jsonl (docs/stages/ppo.md lists their keys). Lines without a key that an alarm
needs, as of an earlier version or an estimator without a critic, ring no alarm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, pstdev
from typing import Any

WINDOW = 5  # iterations that a beginning and an end are the mean of
TREND = 6  # iterations from which on an end is compared with a beginning
NEGATIVE_KL = -1.0  # nats an answer: k1 is noise around 0 at the start, of an iteration's mean never this much (as TRL)
FIRST_RATIO = 1e-3  # from 1; rounding leaves 1e-4 in fp32
START_KL = 0.01  # nats an answer in the first iteration, where it is 0 but for rounding
FLAT = 1e-4  # deviation of raw scores that are the same to every answer
ENTROPY, ENTROPY_LEFT = 0.1, 0.2  # nats a token, and the share of the beginning's, both below: collapsed
LONGER, RISEN = 1.5, 0.5  # times the length; of the scores' deviation, by which the reward has risen
FOLLOWED = 0.5  # the share of the reward's rise by which held-out prompts must have risen
EXPLAINED, CRITIC_TIME = 0.05, 10  # of the returns' variance, after so many iterations
FALLEN, LOOKS = 0.2, 2  # of the scores' deviation, below the best look, for at least so many looks


@dataclass(frozen=True)
class Alarm:
    """`step`: where it was first seen, or the last iteration."""

    name: str
    step: int
    seen: str
    cause: str
    fix: str


class _Metrics:
    """Columns of the lines, in their order: [(step, value)]."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.rows = [row for row in rows if isinstance(row.get("step"), int)]

    def __getitem__(self, key: str) -> list[tuple[int, float]]:
        found = [(row["step"], row.get(key)) for row in self.rows]
        return [(step, float(x)) for step, x in found if isinstance(x, int | float) and not isinstance(x, bool)]

    def values(self, key: str) -> list[float]:
        return [value for _, value in self[key]]

    def ends(self, key: str) -> tuple[float, float] | None:
        """The means of the first and of the last iterations; None where there are too few to compare."""
        values = self.values(key)
        size = min(WINDOW, len(values) // 2)
        return (fmean(values[:size]), fmean(values[-size:])) if len(values) >= TREND else None

    def rise(self, key: str) -> float:
        ends = self.ends(key)
        return 0.0 if ends is None else ends[1] - ends[0]

    def scale(self) -> float:
        """A deviation of the scores to measure by: of the first answers, or of the iterations' means."""
        return fmean(self.values("reward_deviation")[:WINDOW] or [pstdev(self.values("reward") or [0.0])])

    def last(self) -> int:
        return max((row["step"] for row in self.rows), default=0)


def alarms(rows: Sequence[Mapping[str, Any]]) -> list[Alarm]:
    """Of the lines of one stage's metrics.jsonl, those that were logged so far."""
    metrics = _Metrics(rows)
    return [alarm for look in _LOOKS if (alarm := look(metrics)) is not None]


def _negative_kl(m: _Metrics) -> Alarm | None:
    step, kl = next(((s, x) for s, x in m["kl"] if x < NEGATIVE_KL), (0, 0.0))
    if not step:
        return None
    return Alarm(
        "negative KL",
        step,
        f"the mean KL to the reference is {kl:.2f} nats an answer; a KL is never negative",
        "the answers are not samples of the policy they are charged to: another temperature, a top-p below 1, an "
        "engine with older weights; what the policy finds unlikely is then paid for instead of charged",
        "sample at the temperature of the log-probs with top-p 1 and the newest weights; with very few answers an "
        "iteration, draw more",
    )


def _first_ratio(m: _Metrics) -> Alarm | None:
    step, ratio = next(((s, x) for s, x in m["first_ratio"] if abs(x - 1) > FIRST_RATIO), (0, 1.0))
    if not step:
        return None
    return Alarm(
        "first ratio",
        step,
        f"the first mini-batch's ratio is {ratio:.4f}, not 1",
        "the policy that learns is not the one whose log-probs were kept: dropout, another temperature or number "
        "format, or weights that moved in between",
        "this is an error in the program, not in the settings: nothing learned here can be trusted",
    )


def _reference(m: _Metrics) -> Alarm | None:
    kl = next((x for s, x in m["kl_k3"] or m["kl"] if s == 1), 0.0)
    if abs(kl) <= START_KL:
        return None
    return Alarm(
        "stale reference",
        1,
        f"the first iteration is {kl:.2f} nats from the reference before anything was learned",
        "the reference is not the policy that training started from, so the KL is charged for a distance that "
        "nobody went",
        "start from the reference, or take the policy that training starts from as reference",
    )


def _flat(m: _Metrics) -> Alarm | None:
    end = m["reward_deviation"][-WINDOW:]
    if not end or max(x for _, x in end) >= FLAT:
        return None
    return Alarm(
        "no variance",
        end[0][0],
        f"every answer of an iteration has the same reward (deviation {end[-1][1]:.1g})",
        "the reward model cannot tell the answers apart, or they are all the same; whitened, rounding becomes the "
        "reward",
        "look at the answers: where they differ it is the reward model (`ayni score`), where not a higher "
        "temperature, a larger beta or an earlier snapshot",
    )


def _collapse(m: _Metrics) -> Alarm | None:
    before, after = m.ends("entropy") or (0.0, 0.0)
    if after >= min(ENTROPY, ENTROPY_LEFT * before):
        return None
    return Alarm(
        "collapse",
        m.last(),
        f"the entropy fell from {before:.2f} to {after:.3f} nats a token",
        "the policy says nearly one thing alone: advantages of the same sign for long, a step too large or a KL "
        "charged too little",
        "raise beta, lower the learning rate, set kl_budget; go on from a snapshot before the fall",
    )


def _length(m: _Metrics) -> Alarm | None:
    before, after = m.ends("length") or (0.0, 0.0)
    rise, looks = m.rise("reward"), m.values("validation_reward")
    if not before or after < LONGER * before or rise <= RISEN * m.scale():
        return None
    followed = looks[-1] - looks[0] if len(looks) > 1 else 0.0
    if followed >= FOLLOWED * rise:
        return None
    watch = f"held-out prompts by {followed:+.2f}" if len(looks) > 1 else "and nobody looks at held-out prompts"
    return Alarm(
        "length hacking",
        m.last(),
        f"answers grew from {before:.0f} to {after:.0f} tokens, the reward by {rise:+.2f}, {watch}",
        "the reward model likes length itself, and the policy gives it that",
        "compare the reward model with the baseline `longer answer` in its results.json; collect comparisons of long "
        "against short answers, raise beta, lower max_tokens, let a reward_watch look",
    )


def _critic(m: _Metrics) -> Alarm | None:
    explained = m.values("explained_variance")
    end = median(explained[-WINDOW:]) if len(explained) >= CRITIC_TIME else 1.0
    if end >= EXPLAINED:
        return None
    return Alarm(
        "idle critic",
        m.last(),
        f"the critic explains {end:.2f} of the returns' variance after {len(explained)} iterations",
        "it is no better than the mean of the returns: a rate too low, a clip tighter than its errors, or returns "
        "far from the scale of its first values",
        "raise critic_optimiser.lr or critic_warmup, set value_normalisation; or use rloo, which needs no critic",
    )


def _budget(m: _Metrics) -> Alarm | None:
    past = m["over_budget"]
    if not past:
        return None
    return Alarm(
        "over budget",
        past[0][0],
        f"{len(past)} of {len(m['kl'])} iterations were past kl_budget and taught nothing",
        "a step goes further than the weight of the KL pulls back",
        "raise beta or lower optimiser.lr from the start, to where rollback brought them",
    )


def _over_optimised(m: _Metrics) -> Alarm | None:
    looks = m["validation_reward"]
    if len(looks) <= LOOKS:
        return None
    at = max(range(len(looks)), key=lambda i: looks[i][1])
    step, best = looks[at]
    since = [reward for s, reward in m["reward"] if s > step]
    until = [reward for s, reward in m["reward"] if s <= step][-WINDOW:]
    if len(looks) - 1 - at < LOOKS or not since or not until:
        return None
    fall, rise = best - looks[-1][1], fmean(since[-WINDOW:]) - fmean(until)
    if fall <= FALLEN * m.scale() or rise <= 0:
        return None
    return Alarm(
        "over-optimised",
        step,
        f"since iteration {step} held-out prompts fell by {fall:.2f} while the reward rose by {rise:.2f}",
        "the policy now finds what the reward model gets wrong, or knows the training prompts by heart",
        "take the policy of that iteration (validation keeps it); train the reward model on the newest answers, use "
        "more prompts, raise beta",
    )


_LOOKS: tuple[Callable[[_Metrics], Alarm | None], ...] = (
    _first_ratio,
    _reference,
    _negative_kl,
    _flat,
    _collapse,
    _length,
    _critic,
    _budget,
    _over_optimised,
)
