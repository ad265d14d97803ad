"""The online loop, given its parts: scripted ones, tiny local ones, adapters; and every estimator and loss learns."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from online_parts import LIKED, PROMPTS, ScriptedEngine, likes_token, loop_of
from tiny import tokenizer

from ayni.config import parse_config
from ayni.errors import BadInput, BadNumbers
from ayni.files import Killed
from ayni.model.adapters import Lora
from ayni.online.algorithm import Algorithm, Grpo, TrustRegion
from ayni.online.experience import ScoredAnswers
from ayni.online.loop import Loop
from ayni.online.settings import LoopSettings
from ayni.records import Prompt, Sample
from ayni.seeds import seed_of

LORA = Lora(rank=4, alpha=8)
EOS = tokenizer().eos


def metrics(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def weights(loop: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in loop.policy.role.trainable().items()}


# Scripted: nothing is sampled, every number can be followed


SCRIPT = [[LIKED, LIKED, EOS], [40, 41], [LIKED, EOS], [40, 41, 42, EOS]]


@pytest.mark.parametrize("lora", [None, LORA], ids=["whole", "lora"])
def test_one_iteration_of_a_scripted_engine_and_reward(tmp_path: Path, lora: Lora | None) -> None:
    """Liked answers become likelier than they were, disliked ones rarer; the engine hears of the new weights."""
    engine = ScriptedEngine(SCRIPT)
    settings = {"iterations": 3, "batch_size": 4, "mini_batch": 4, "beta": 0.0}
    loop = loop_of(tmp_path, engine=engine, lora=lora, **settings)
    loop.iterate(PROMPTS[:4])
    (line,) = metrics(tmp_path)
    assert line["reward"] == pytest.approx((2 + 0 + 1 + 0) / 4)
    assert line["length"] == pytest.approx((3 + 2 + 2 + 4) / 4)
    assert line["truncated"] == 0.25
    assert line["kl"] == 0
    assert line["first_ratio"] == pytest.approx(1, abs=1e-6)
    assert (engine.asked, engine.synced) == (4, 1)
    for _ in range(2):
        loop.iterate(PROMPTS[:4])
    assert [entry["step"] for entry in metrics(tmp_path)] == [1, 2, 3]
    assert metrics(tmp_path)[-1]["kl"] != 0


def optimised(loop: Loop, prompts: list[Prompt]) -> ScoredAnswers:
    """What one iteration learned from."""
    seen: list[ScoredAnswers] = []
    estimator = loop.estimator

    def spying(answers: Any, memory: Any) -> Any:
        seen.append(answers)
        return estimator(answers, memory)

    for name in ("greedy", "whitened"):
        setattr(spying, name, getattr(estimator, name))
    loop.estimator = spying  # type: ignore[assignment]
    loop.iterate(prompts)
    (answers,) = seen
    return answers


def test_answers_cut_off_get_the_reward_they_are_given(tmp_path: Path) -> None:
    loop = loop_of(tmp_path, engine=ScriptedEngine(SCRIPT), batch_size=4, truncated=-7.0)
    rewards = optimised(loop, PROMPTS[:4]).rewards
    assert [float(r) == -7.0 for r in rewards] == [False, True, False, False]
    # the finished ones alone set the scale: their rewards are 2, 1 and 0
    assert rewards[[0, 2, 3]].tolist() == pytest.approx([1.5**0.5, 0, -(1.5**0.5)], abs=1e-5)


ESTIMATORS: dict[str, dict[str, Any]] = {
    "gae": {},
    "actor_critic": {"loss": "gradient"},
    "reinforce": {"loss": "gradient"},
    "remax": {"loss": "gradient"},
    "rloo": {"n": 2},
    "grpo": {"n": 2},
}


@pytest.mark.parametrize("taste", [0.0, 1000.0], ids=["as scored 0", "as scored 1000"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_cut_answer_is_the_worst_of_its_iteration_by_default(estimator: str, taste: float, tmp_path: Path) -> None:
    """Whatever the reward model makes of it, and wherever the scale of its scores lies."""

    def likes_cut(prompt: Prompt, sample: Sample) -> float:
        return taste if sample.finished == "length" else 500 + 10 * likes_token(prompt, sample)

    default = LoopSettings().truncated
    settings = {"estimator": estimator, "truncated": default, "batch_size": 4, **ESTIMATORS[estimator]}
    loop = loop_of(tmp_path, likes_cut, engine=ScriptedEngine(SCRIPT), **settings)
    answers = optimised(loop, PROMPTS[:4])
    rewards = answers.rewards.tolist()
    finished = [rewards[i] for i in (0, 2, 3)]
    assert rewards[1] < min(finished) - 0.5 * (max(finished) - min(finished)) / 3
    assert rewards[1] > min(finished) - (max(finished) - min(finished))  # and not lost in the distance
    if answers.greedy is not None:
        # the script begins anew for the greedy answers: the second is the same cut one
        assert answers.greedy.tolist() == rewards


def test_validation_does_not_fall_for_cut_answers(tmp_path: Path) -> None:
    """Else the best policy by validation could be one that never stops."""

    def likes_cut(prompt: Prompt, sample: Sample) -> float:
        return 1000.0 if sample.finished == "length" else likes_token(prompt, sample)

    looked = {}
    for truncated in ("worst", "scored"):
        loop = loop_of(tmp_path / truncated, likes_cut, engine=ScriptedEngine(SCRIPT), truncated=truncated)
        loop.validate(PROMPTS[:4])
        looked[truncated] = loop.best
    assert looked["scored"] == pytest.approx((2 + 1000 + 1 + 0) / 4)
    assert looked["worst"] == pytest.approx((2 + (0 - (2 / 3) ** 0.5) + 1 + 0) / 4)


# A batch is a batch, however few the prompts


@pytest.mark.parametrize(("count", "n"), [(5, 1), (12, 1), (1, 1), (5, 2), (4, 4)])
def test_every_iteration_has_all_its_answers(count: int, n: int, tmp_path: Path) -> None:
    def drawn(directory: Path) -> list[tuple[str, int]]:
        loop = loop_of(directory, n=n)
        found: list[tuple[str, int]] = []
        score = loop.reward

        def seen(prompts: Any, groups: Any) -> Any:
            assert [{s.prompt_id for s in group} for group in groups] == [{p.id} for p in prompts]
            found.extend((s.prompt_id, s.seed) for group in groups for s in group)
            return score(prompts, groups)

        loop.reward = seen
        loop.iterate(PROMPTS[:count])
        return found

    answers = drawn(tmp_path / "first")
    assert len(answers) == len(set(answers)) == 12  # no random numbers twice
    asked = Counter(id for id, _ in answers)
    assert max(asked.values()) - min([*asked.values(), *([0] if len(asked) < min(count, 12 // n) else [])]) <= n
    assert len(asked) == min(count, 12 // n)
    # answer k of a prompt draws from (seed, stage, iteration, prompt, k), whichever pass it is
    seeds = {seed_of(seed_of(1, "ppo"), 1, id, k) for id, times in asked.items() for k in range(times)}
    assert {seed for _, seed in answers} == seeds
    assert drawn(tmp_path / "again") == answers


def test_with_few_prompts_the_schedule_still_ends_with_the_last_step(tmp_path: Path) -> None:
    settings = {"iterations": 3, "optimiser": {"lr": 3e-3, "schedule": "cosine", "warmup": 0}}
    loop_of(tmp_path, **settings).train(PROMPTS[:5])
    assert metrics(tmp_path)[-1]["policy_lr"] == pytest.approx(3e-4)


def test_the_same_answer_as_the_greedy_one_is_worth_nothing(tmp_path: Path) -> None:
    """ReMax asks for one more answer a prompt, and compares."""
    engine = ScriptedEngine([[LIKED, EOS], [40, EOS]])  # the drawn answers; the greedy ones repeat them
    loop = loop_of(tmp_path, engine=engine, estimator="remax", loss="gradient", batch_size=2, mini_batch=2, beta=0.0)
    before = weights(loop)
    loop.policy.trainer.optimiser = loop.policy.trainer.optimiser.model_copy(update={"weight_decay": 0.0})
    for group in loop.policy.trainer.adam.param_groups:
        group["weight_decay"] = 0.0
    loop.iterate(PROMPTS[:2])
    assert engine.asked == 4
    for name, weight in weights(loop).items():
        torch.testing.assert_close(weight, before[name], rtol=0, atol=1e-7, msg=name)


# Local: the policy samples for itself


@pytest.mark.parametrize("lora", [None, LORA], ids=["whole", "lora"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_first_ratio_is_1_and_the_first_kl_is_0(tmp_path: Path, temperature: float, lora: Lora | None) -> None:
    loop = loop_of(tmp_path, lora=lora, temperature=temperature, iterations=4)
    loop.train(PROMPTS)
    lines = metrics(tmp_path)
    assert lines[0]["kl"] == 0
    for line in lines:
        assert line["first_ratio"] == pytest.approx(1, abs=1e-6)
    assert any(abs(line["ratio"] - 1) > 1e-4 for line in lines)  # the second mini-batch sees a moved policy
    assert any(line["kl"] != 0 for line in lines[1:])


def test_while_only_the_critic_learns_the_policy_stands_still(tmp_path: Path) -> None:
    loop_of(tmp_path, critic_warmup=3, iterations=5).train(PROMPTS)
    lines = metrics(tmp_path)
    assert [line["kl"] for line in lines[:4]] == [0, 0, 0, 0]
    assert ["policy_loss" in line for line in lines] == [False, False, False, True, True]
    assert all("value_loss" in line for line in lines)
    assert lines[4]["kl"] != 0


FAMILY = {
    "ppo": {},
    "ppo with adapters": {"lora": Lora(rank=8, alpha=32)},
    "ppo, three answers a prompt": {"n": 3},
    "ppo-penalty": {"loss": "penalty"},
    "actor-critic": {"estimator": "actor_critic", "loss": "gradient"},
    "reinforce": {"estimator": "reinforce", "loss": "gradient"},
    "remax": {"estimator": "remax", "loss": "gradient"},
    "rloo": {"estimator": "rloo", "loss": "clip", "n": 4},
    "grpo": {"estimator": "grpo", "n": 4},
    "dr. grpo": {"estimator": "grpo", "grpo": Grpo(by_std=False, by_answer=False), "n": 4},
}
TRPO = {
    "estimator": "rloo",
    "loss": "trust_region",
    "n": 4,
    "batch_size": 24,
    "mini_batch": 24,
    "step_kl": 0.1,
    "trust_region": TrustRegion(damping=0.01, steps=4),
    "tokens_per_micro_batch": 10**6,
}


def low(prompt: Prompt, sample: Sample) -> float:
    """The share of tokens of the lower half of the vocabulary."""
    return sum(token < 150 for token in sample.tokens) / len(sample.tokens)


@pytest.mark.parametrize("name", FAMILY)
def test_every_relative_learns_what_is_liked(name: str, tmp_path: Path) -> None:
    settings = {"iterations": 8, "batch_size": 24, "mini_batch": 8, "tokens_per_micro_batch": 1000, **FAMILY[name]}
    lora = settings.pop("lora", None)
    loop_of(tmp_path, low, lora=lora, **settings).train(PROMPTS)
    rewards = [line["reward"] for line in metrics(tmp_path)]
    assert rewards[0] < 0.6
    assert sum(rewards[-2:]) / 2 > rewards[0] + 0.25


def test_kl_holds_the_policy_back(tmp_path: Path) -> None:
    last = {}
    for beta in (0.0, 2.0):
        loop_of(tmp_path / str(beta), beta=beta, iterations=12).train(PROMPTS)
        last[beta] = metrics(tmp_path / str(beta))[-1]["kl"]
    assert abs(last[2.0]) < last[0.0] / 3


@pytest.mark.parametrize("estimator", ["rloo", "grpo", "reinforce"])
def test_kl_holds_back_what_has_no_critic_too(estimator: str, tmp_path: Path) -> None:
    last = {}
    for beta in (0.0, 2.0):
        settings = {"estimator": estimator, "n": 1 if estimator == "reinforce" else 4, "iterations": 12}
        loop_of(tmp_path / str(beta), beta=beta, **settings).train(PROMPTS)
        # of half the run: an iteration's few sampled answers are noise
        last[beta] = sum(line["kl"] for line in metrics(tmp_path / str(beta))[-6:]) / 6
    assert abs(last[2.0]) < last[0.0] / 1.4


def test_a_penalty_for_answers_cut_off_teaches_to_stop(tmp_path: Path) -> None:
    loop_of(tmp_path, lambda prompt, sample: 0.0, truncated=-3.0).train(PROMPTS)
    shares = [line["truncated"] for line in metrics(tmp_path)]
    assert sum(shares[:3]) / 3 > 0.15
    assert sum(shares[-10:]) / 10 < 0.05


def test_the_critic_learns_what_returns_to_expect(tmp_path: Path) -> None:
    """Long prompts pay and short ones do not: the value of a prompt can be known."""
    loop = loop_of(
        tmp_path,
        lambda prompt, sample: float(len(prompt.dialog[0].content) > 12),
        critic_warmup=20,
        iterations=20,
        value_clip=5.0,
    )
    loop.train(PROMPTS)
    explained = [line["explained_variance"] for line in metrics(tmp_path)]
    assert explained[-1] > 0.5 > explained[0]


@pytest.mark.parametrize("lora", [None, Lora(rank=8, alpha=32)], ids=["whole", "lora"])
def test_trpo_raises_the_reward_and_keeps_its_bound_at_every_step(tmp_path: Path, lora: Lora | None) -> None:
    loop_of(tmp_path, low, lora=lora, iterations=8, **TRPO).train(PROMPTS)
    lines = metrics(tmp_path)
    assert sum(line["reward"] for line in lines[-2:]) / 2 > lines[0]["reward"] + 0.1
    assert all(0 <= line["step_kl"] <= 0.1 and line["gain"] >= 0 for line in lines)
    assert any(line["step_kl"] > 0.05 for line in lines)


def test_the_penalty_finds_its_target(tmp_path: Path) -> None:
    loop_of(tmp_path, loss="penalty", step_kl=1e-9, iterations=4).train(PROMPTS)
    penalties = [line["penalty"] for line in metrics(tmp_path)]
    assert penalties == [2.0, 4.0, 8.0, 16.0]  # the policy always moved further than that


def test_the_penalty_waits_for_a_policy_that_waits_for_its_critic(tmp_path: Path) -> None:
    loop_of(tmp_path, loss="penalty", step_kl=1e-9, critic_warmup=2, iterations=4).train(PROMPTS)
    assert [line.get("penalty") for line in metrics(tmp_path)] == [None, None, 2.0, 4.0]


def test_a_greedy_baseline_that_was_cut_off_counts_as_cut_off(tmp_path: Path) -> None:
    """All answers are cut off, sampled and greedy ones: none is better than its baseline."""
    cut_off = ScriptedEngine([[40, 41]])
    loop = loop_of(tmp_path, engine=cut_off, estimator="remax", loss="gradient", beta=0, truncated=-3.0, iterations=1)
    loop.train(PROMPTS)
    assert metrics(tmp_path)[0]["policy_norm"] == 0


def test_grpo_s_kl_is_in_the_loss_of_clip_and_is_not_dropped_elsewhere() -> None:
    with pytest.raises(BadInput, match="grpo charges its KL in the loss clip"):
        parse_config(Algorithm, {"estimator": "grpo", "n": 4, "loss": "gradient"})
    parse_config(Algorithm, {"estimator": "grpo", "n": 4, "loss": "gradient", "beta": 0})


def test_every_answer_is_learned_from_whatever_the_sizes(tmp_path: Path) -> None:
    loop = loop_of(tmp_path, iterations=1, batch_size=11, mini_batch=4, epochs=2)
    sizes: list[int] = []
    learn = loop.policy.learn

    def counted(trajectories: Any) -> Any:
        sizes.append(len(trajectories))
        return learn(trajectories)

    loop.policy.learn = counted  # type: ignore[method-assign]
    loop.train(PROMPTS)
    assert sizes == [4, 4, 3] * 2


# Looks at held-out prompts, alarms, and kills


def two_minded(prompt: Prompt, sample: Sample) -> float:
    """Validation prompts dislike what training prompts like: the first look is the best one."""
    return -likes_token(prompt, sample) if prompt in PROMPTS[8:] else likes_token(prompt, sample)


STOPPING = {"validate_every": 3, "patience": 2, "iterations": 60, "checkpoint_every": 3}


@pytest.mark.parametrize("lora", [None, LORA], ids=["whole", "lora"])
def test_early_stopping_keeps_the_best_policy(tmp_path: Path, lora: Lora | None) -> None:
    seen: dict[int, dict[str, torch.Tensor]] = {}
    loop = loop_of(tmp_path / "whole", two_minded, lora=lora, snapshot_every=3, **STOPPING)
    seen[0] = weights(loop)
    loop.train(PROMPTS[:8], PROMPTS[8:], lambda t: seen.update({t: weights(loop)}))
    looks = {e["step"]: e["validation_reward"] for e in metrics(tmp_path / "whole") if "validation_reward" in e}
    steps = list(looks)
    best = max(steps, key=lambda step: looks[step])  # (max takes the first of equals, as the loop does)
    assert steps == list(range(0, best + 7, 3))  # patience: two looks without a better one
    assert steps[-1] < 60
    for name, weight in weights(loop).items():
        assert torch.equal(weight, seen[best][name])
    assert not all(torch.equal(weight, seen[steps[-1]][name]) for name, weight in weights(loop).items())


def test_a_second_judge_watches_and_a_policy_that_only_gets_worse_for_it_stays_as_it_was(tmp_path: Path) -> None:
    """Nothing is optimised against it: what it dislikes is learned, seen, and put back."""

    asked = itertools.count()

    def less_and_less(prompt: Prompt, sample: Sample) -> float:
        return -float(next(asked))

    loop = loop_of(tmp_path / "watched", likes_token, watch=less_and_less, **STOPPING)
    start = weights(loop)
    loop.train(PROMPTS[:8], PROMPTS[8:])
    looks = [e["validation_reward"] for e in metrics(tmp_path / "watched") if "validation_reward" in e]
    assert looks[0] > looks[-1]
    assert loop.iteration < 60
    for name, weight in weights(loop).items():
        assert torch.equal(weight, start[name])


@pytest.mark.parametrize(
    ("name", "kill"),
    [
        ("ppo", 3),
        ("ppo", 4),
        ("ppo", 5),
        ("ppo, few prompts", 4),
        ("ppo with adapters", 4),
        ("reinforce", 5),
        ("ppo-penalty", 4),
        ("trpo", 3),
    ],
)
def test_a_killed_loop_goes_on_to_the_same_bits(name: str, kill: int, tmp_path: Path) -> None:
    few = {"iterations": 4, "trust_region": TrustRegion(damping=0.01, steps=2)} if name == "trpo" else {"iterations": 6}
    family = {**FAMILY, "trpo": TRPO, "ppo, few prompts": {}}
    changed = {**family[name], "checkpoint_every": 2, **few}
    lora = changed.pop("lora", None)
    asked = PROMPTS[:5] if name == "ppo, few prompts" else PROMPTS

    def killed(prompt: Prompt, sample: Sample) -> float:
        if sample.iteration == kill:
            raise Killed(f"in iteration {kill}")
        return likes_token(prompt, sample)

    whole = loop_of(tmp_path / "whole", lora=lora, **changed)
    whole.train(asked)
    with pytest.raises(Killed):
        loop_of(tmp_path / "killed", killed, lora=lora, **changed).train(asked)
    again = loop_of(tmp_path / "killed", lora=lora, **changed)
    again.train(asked)
    assert metrics(tmp_path / "killed") == metrics(tmp_path / "whole")
    for key, weight in weights(whole).items():
        assert torch.equal(weight, weights(again)[key]), key


def test_the_kl_alarm_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(BadNumbers, match=r"mean KL per answer is .* over kl_limit 0.5") as error:
        loop_of(tmp_path, beta=0.0, kl_limit=0.5).train(PROMPTS)
    assert error.value.exit_code == 4


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"estimator": "rloo"}, "rloo compares the answers of a prompt: n must be at least 2"),
        ({"estimator": "grpo", "n": 1}, "n must be at least 2"),
        ({"loss": "trust_region", "dtype": "bf16"}, "dtype must be fp32, or auto"),
        ({"batch_size": 10, "n": 4}, "batch_size 10 is not a multiple of n 4"),
        ({"truncated": "never"}, "truncated"),
    ],
)
def test_what_cannot_go_together_is_refused(settings: dict[str, Any], what: str) -> None:
    with pytest.raises(BadInput, match=what):
        parse_config(Algorithm, settings)
