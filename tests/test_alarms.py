"""Every alarm rings for the metrics it is about, and none for those of a sound run."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from online_parts import PROMPTS, loop_of

from ayni.online.alarms import alarms
from ayni.records import Prompt, Sample

Rows = list[dict[str, Any]]


def sound(count: int = 40) -> Rows:
    """A run as it should be: the reward rises and levels off, the KL with it, held-out prompts follow."""
    draw = random.Random(0)
    rows: Rows = [{"step": 0, "validation_reward": 0.0}]
    for step in range(1, count + 1):
        done = 1 - 0.93 ** (step - 1)
        rows.append(
            {
                "step": step,
                "reward": 1.5 * done + draw.gauss(0, 0.05),
                "reward_deviation": 1.0 - 0.3 * done,
                "kl": max(4 * done + draw.gauss(0, 0.2), -0.3) if step > 1 else 0.0,
                "kl_k3": 4 * done,
                "beta": 0.01,
                "entropy": 1.2 - 0.5 * done,
                "length": 40 + 8 * done + draw.gauss(0, 1),
                "truncated": 0.02,
                "first_ratio": 1 + draw.gauss(0, 1e-5),
                "ratio": 1.01,
                "clipped": 0.1,
                "approx_kl": 0.003,
                "explained_variance": 0.6 * done,
            }
        )
        if step % 5 == 0:
            rows.append({"step": step, "validation_reward": 1.1 * done + draw.gauss(0, 0.02)})
    return rows


def changed(key: str, new: Any, rows: Rows | None = None) -> Rows:
    """Of every line that has the key: new(step, value)."""
    return [row | {key: new(row["step"], row[key])} if key in row else row for row in (rows or sound())]


def names(rows: Rows) -> list[str]:
    return [alarm.name for alarm in alarms(rows)]


def test_a_sound_run_rings_none_at_any_length_and_with_any_key_missing() -> None:
    for count in range(41):
        assert names(sound(count)) == []
    for key in {key for row in sound() for key in row if key != "step"}:
        assert names([{k: v for k, v in row.items() if k != key} for row in sound()]) == []
    assert names([]) == []


def test_a_run_that_learned_what_was_liked_rings_none(tmp_path: Path) -> None:
    """A real one, though tiny."""

    def low(prompt: Prompt, sample: Sample) -> float:
        return sum(token < 150 for token in sample.tokens) / len(sample.tokens)

    settings = {"iterations": 12, "batch_size": 24, "mini_batch": 8, "validate_every": 3, "patience": 99}
    loop_of(tmp_path, low, **settings, optimiser={"lr": 1e-3}, critic_warmup=2).train(PROMPTS[:8], PROMPTS[8:])
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-2]["reward"] > rows[1]["reward"] + 0.1
    assert [name for name in names(rows) if name != "idle critic"] == []  # twelve steps of a critic that knew nothing


def falls(step: int, value: float) -> float:
    return value if step <= 20 else value - 0.03 * (step - 20)


ALARMS: dict[str, tuple[Rows, int, str]] = {
    "first ratio": (changed("first_ratio", lambda s, x: 1.01 if s >= 7 else x), 7, "is 1.0100, not 1"),
    "stale reference": (changed("kl_k3", lambda s, x: x + 3.0), 1, "is 3.00 nats from the reference"),
    "negative KL": (changed("kl", lambda s, x: x - 6 if s >= 9 else x), 9, "nats an answer; a KL is never negative"),
    "no variance": (changed("reward_deviation", lambda s, x: x if s < 30 else 1e-7), 36, "has the same reward"),
    "collapse": (changed("entropy", lambda s, x: x * 0.8**s), 40, "the entropy fell from 0."),
    "length hacking": (
        changed("validation_reward", lambda s, x: 0.0, changed("length", lambda s, x: x + 2 * s)),
        40,
        "held-out prompts by +0.00",
    ),
    "idle critic": (changed("explained_variance", lambda s, x: -0.1), 40, "explains -0.10 of the returns' variance"),
    "over budget": ([*sound(), {"step": 41, "kl": 9.0, "over_budget": 1.0}], 41, "1 of 41 iterations"),
    "over-optimised": (changed("validation_reward", falls), 20, "since iteration 20 held-out prompts fell by"),
}


@pytest.mark.parametrize("name", ALARMS)
def test_each_alarm_rings_alone_where_it_should(name: str) -> None:
    rows, step, seen = ALARMS[name]
    (alarm,) = alarms(rows)
    assert (alarm.name, alarm.step) == (name, step)
    assert seen in alarm.seen
    assert alarm.cause
    assert alarm.fix


def test_longer_answers_that_held_out_prompts_gain_from_too_are_no_hacking() -> None:
    longer = changed("length", lambda s, x: x + 2 * s)
    assert names(longer) == []
    unwatched = [row for row in longer if "validation_reward" not in row]
    (alarm,) = alarms(unwatched)
    assert "nobody looks at held-out prompts" in alarm.seen


def test_two_looks_that_are_no_better_are_not_yet_a_fall() -> None:
    """One bad look is chance; and where the reward falls too, nothing was over-optimised."""
    rows = changed("validation_reward", lambda s, x: x - 1 if s == 40 else x)
    assert names(rows) == []
    both = changed("reward", lambda s, x: falls(s, x) - (s > 20), changed("validation_reward", falls))
    assert names(both) == []


def test_a_line_that_is_no_line_of_numbers_rings_none() -> None:
    assert (
        names([*sound(), {"step": "x", "kl": -9}, {"step": 41, "kl": None, "first_ratio": "1", "entropy": True}]) == []
    )
