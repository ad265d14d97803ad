"""The online loop, given its parts: scripted ones, tiny local ones, adapters; and every estimator and loss learns."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from online_parts import LIKED, PROMPTS, ScriptedEngine, likes_token, loop_of
from tiny import answered, reward_model, tokenizer

from ayni.config import parse_config
from ayni.errors import BadInput, BadNumbers
from ayni.files import Killed
from ayni.model.adapters import Lora
from ayni.model.placement import Placement
from ayni.model.role import Role
from ayni.online.algorithm import Algorithm, Grpo, TrustRegion
from ayni.online.estimators import charged_rewards
from ayni.online.experience import ScoredAnswers
from ayni.online.loop import Loop
from ayni.online.settings import LoopSettings
from ayni.parallel import Ranks
from ayni.records import Prompt, Sample
from ayni.seeds import seed_of
from ayni.train.batch import Trajectory, batch_of

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


def test_rewards_end_at_their_bound_after_whitening_and_cut_answers_stay_the_worst(tmp_path: Path) -> None:
    settings = {"batch_size": 4, "reward_clip": 1.0, "truncated": "worst"}
    rewards = optimised(loop_of(tmp_path, engine=ScriptedEngine(SCRIPT), **settings), PROMPTS[:4]).rewards
    # whitened 2, 1 and 0 are ±1.22 and 0; a cut one is a deviation of 1, 0 and −1 below the least
    assert rewards.tolist() == pytest.approx([1.0, -1 - (2 / 3) ** 0.5, 0, -1.0], abs=1e-5)


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


# beta, the critic's scale and the last policy within the budget are states
STATEFUL: dict[str, dict[str, Any]] = {
    "adaptive": {"adaptive_kl": {"target": 0.01, "horizon": 20}},
    "popart": {"value_normalisation": True},
    "rollback": {"kl_budget": 0.1, "over_budget": "rollback", "optimiser": {"lr": 2e-3}},
}
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
        ("adaptive", 4),
        ("popart", 4),
        ("rollback", 3),
        ("rollback", 4),
        ("rollback", 5),
        ("rollback", 6),
    ],
)
def test_a_killed_loop_goes_on_to_the_same_bits(name: str, kill: int, tmp_path: Path) -> None:
    few = {"iterations": 4, "trust_region": TrustRegion(damping=0.01, steps=2)} if name == "trpo" else {"iterations": 6}
    family = {**FAMILY, "trpo": TRPO, "ppo, few prompts": {}, **STATEFUL}
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


# The weight of the KL, and its budget


def test_beta_follows_the_kl_and_stands_still_without_being_asked(tmp_path: Path) -> None:
    adaptive = {"adaptive_kl": {"target": 0.5, "horizon": 60}, "iterations": 8, "beta": 0.15, "critic_warmup": 2}
    loop_of(tmp_path / "adaptive", **adaptive).train(PROMPTS)
    lines = metrics(tmp_path / "adaptive")
    beta = 0.15
    for line in lines:
        assert line["beta"] == pytest.approx(beta, rel=1e-12)
        if line["step"] > 2:  # a policy that waits has no KL to answer for
            beta *= 1 + float(np.clip(line["kl"] / 0.5 - 1, -0.2, 0.2)) * 12 / 60
    assert len({line["beta"] for line in lines}) == 6
    loop_of(tmp_path / "constant", iterations=3).train(PROMPTS)
    assert [line["beta"] for line in metrics(tmp_path / "constant")] == [0.01] * 3


def test_a_larger_beta_is_charged_from_the_next_iteration_on(tmp_path: Path) -> None:
    loop = loop_of(tmp_path, estimator="reinforce", loss="gradient", beta=0.0)
    for beta in (0.0, 7.0):
        loop.beta = beta
        answers = optimised(loop, PROMPTS)
        assert answers.beta == beta
        torch.testing.assert_close(charged_rewards(answers), answers.rewards - beta * answers.kl())


def test_both_estimates_of_the_kl_are_logged(tmp_path: Path) -> None:
    """Over many iterations they agree; k3 is never negative."""
    loop_of(tmp_path, iterations=30, beta=0.0, optimiser={"lr": 1e-3}).train(PROMPTS)
    k1, k3 = ([line[key] for line in metrics(tmp_path)] for key in ("kl", "kl_k3"))
    assert k3[0] == 0
    assert min(k3) >= 0
    assert sum(k1) / 30 == pytest.approx(sum(k3) / 30, rel=0.3)


RUNAWAY: dict[str, Any] = {"beta": 0.001, "optimiser": {"lr": 2e-3}, "kl_budget": 1.0, "iterations": 16}


def snapshot(loop: Loop) -> dict[str, Any]:
    """The policy with all that its learner keeps."""
    tensors, numbers = loop.policy.state("")
    return {name: tensor.detach().clone() for name, tensor in tensors.items()} | numbers


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(a[key], b[key]) if isinstance(a[key], torch.Tensor) else a[key] == b[key] for key in a
    )


@pytest.mark.parametrize("loss", ["clip", "penalty"])
def test_past_its_budget_the_policy_goes_back_to_the_bits_it_had_within(loss: str, tmp_path: Path) -> None:
    loop = loop_of(tmp_path, over_budget="rollback", loss=loss, **RUNAWAY)
    within, kl, beta, lr, returned, backs = snapshot(loop), 0.0, 0.001, 2e-3, False, set()
    for _ in range(16):
        start = snapshot(loop)
        loop.iterate(PROMPTS)
        line = metrics(tmp_path)[-1]
        assert line["beta"] == beta
        if "over_budget" in line:
            assert line["kl"] > 1.0
            assert not returned
            assert "policy_loss" not in line
            assert "value_loss" not in line
            assert same(snapshot(loop), within)
            # from less than half the budget it was one step that went too far, else the weight of the KL
            beta, lr, returned = (beta, lr / 2, True) if kl < 0.5 else (2 * beta, lr, True)
            backs.add("step" if kl < 0.5 else "beta")
        else:
            assert line["kl"] <= 1.0 or returned
            within, kl, returned = start, line["kl"], False
            assert line["policy_lr"] == lr
            assert not same(snapshot(loop), start)
    assert backs == {"step", "beta"}


def test_a_budget_that_stops_leaves_the_last_policy_within_it(tmp_path: Path) -> None:
    loop = loop_of(tmp_path, **RUNAWAY)
    seen: dict[int, dict[str, Any]] = {0: snapshot(loop)}
    loop.train(PROMPTS, keep=lambda t: None)
    lines = metrics(tmp_path)
    assert 2 < len(lines) < 16
    assert [line.get("over_budget", 0) for line in lines] == [0] * (len(lines) - 1) + [1]
    again = loop_of(tmp_path / "again", **{**RUNAWAY, "kl_budget": None})
    for t in range(1, len(lines)):
        again.iterate(PROMPTS)
        seen[t] = snapshot(again)
    # the last line is of the policy after the last step: it has gone too far, and the one before stands
    assert same(snapshot(loop), seen[len(lines) - 2])


def test_the_policy_of_the_last_iteration_keeps_to_the_budget_too(tmp_path: Path) -> None:
    """Its KL shows in what it would have said next."""
    free = loop_of(tmp_path / "free", **{**RUNAWAY, "kl_budget": None, "iterations": 3})
    for _ in range(2):
        free.iterate(PROMPTS)
    second = snapshot(free)
    for _ in range(2):
        free.iterate(PROMPTS)
    assert metrics(tmp_path / "free")[3]["kl"] > 1 > max(line["kl"] for line in metrics(tmp_path / "free")[:3])
    held = loop_of(tmp_path / "held", **{**RUNAWAY, "iterations": 3})
    held.train(PROMPTS)
    assert same(snapshot(held), second)
    assert len(metrics(tmp_path / "held")) == 3


def test_the_best_on_held_out_prompts_is_within_the_budget(tmp_path: Path) -> None:
    """A look at a policy that turns out to be past it does not count."""
    looks = {"validate_every": 1, "patience": 99}
    loop = loop_of(tmp_path, **RUNAWAY, **looks)
    start = weights(loop)
    seen: dict[int, dict[str, torch.Tensor]] = {0: start}
    iterate = loop.iterate

    def noted(prompts: Any) -> None:
        iterate(prompts)
        seen[loop.iteration] = weights(loop)

    loop.iterate = noted  # type: ignore[method-assign]
    loop.train(PROMPTS[:8], PROMPTS[8:])
    lines = [line for line in metrics(tmp_path) if "kl" in line]
    rewards = {line["step"]: line["validation_reward"] for line in metrics(tmp_path) if "validation_reward" in line}
    last = len(lines) - 2  # the last policy within
    assert "over_budget" in lines[-1]
    best = max(range(last + 1), key=lambda t: rewards[t])
    assert max(rewards, key=lambda t: rewards[t]) == last + 1  # it would have been chosen
    assert all(torch.equal(weight, seen[best][name]) for name, weight in weights(loop).items())


# A critic in units of its returns


def critics(scale: float) -> tuple[Any, Any]:
    """(as it is, normalised): values `scale` times those of a common model."""
    found = []
    for normalised in (False, True):
        role = Role(reward_model(5))
        with torch.no_grad():
            role.model.head.mul_(scale)
        algorithm = parse_config(Algorithm, {"value_normalisation": normalised, "value_clip": 5.0, "dtype": "fp32"})
        algorithm = algorithm.model_copy(
            update={"critic_optimiser": algorithm.critic_optimiser.model_copy(update={"lr": 1e-2})}
        )
        found.append(algorithm.critic(role, Placement(Ranks())))
    return found[0], found[1]


def returned(scale: float, seed: int) -> list[Trajectory]:
    """Returns of deviation near `scale` around three times that."""
    draw = np.random.default_rng(seed)
    rows = [answered(draw) for _ in range(6)]
    found = []
    for row in rows:
        mask = torch.tensor([*row.mask[1:], False])
        returns = torch.from_numpy(draw.normal(3, 1, len(row.tokens))).float() * scale * mask
        nothing = torch.zeros_like(returns)
        found.append(Trajectory(row, nothing, nothing, None, nothing, returns))
    return found


def values_of(critic: Any) -> torch.Tensor:
    with torch.no_grad():
        return critic.role.values(batch_of([t.sequence for t in returned(1.0, 99)]))


def test_a_normalised_critic_s_values_stay_while_its_scale_moves() -> None:
    _, critic = critics(1.0)
    before = values_of(critic)
    for seed, scale in enumerate((0.01, 1.0, 50.0)):
        critic.moments = critic.moments.joined(torch.cat([t.returns for t in returned(scale, seed)]))
        critic._rescale(critic.moments.deviation)
        torch.testing.assert_close(values_of(critic), before, rtol=1e-5, atol=1e-6)
    assert critic.objective.scale > 10


def test_a_normalised_critic_learns_alike_at_any_scale_of_returns() -> None:
    """With returns a thousand times larger, values are exactly that; a plain critic never gets there."""
    found = {}
    for scale in (1.0, 1000.0):
        for name, critic in zip(("plain", "normalised"), critics(scale), strict=True):
            for seed in range(20):
                examples = returned(scale, seed)
                for t in examples:
                    t.values.copy_(0 * t.values)
                logged = critic.learn(examples)
            found[name, scale] = values_of(critic) / scale
            if name == "normalised":
                drawn = [t for s in range(20) for t in returned(scale, s)]
                every = [t.returns[torch.tensor([*t.sequence.mask[1:], False])] for t in drawn]
                assert logged["return_deviation"] == pytest.approx(float(torch.cat(every).std(correction=0)), rel=1e-5)
    torch.testing.assert_close(found["normalised", 1000.0], found["normalised", 1.0], rtol=2e-2, atol=2e-2)
    assert (found["plain", 1000.0] - found["plain", 1.0]).abs().mean() > 0.5


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"estimator": "rloo"}, "rloo compares the answers of a prompt: n must be at least 2"),
        ({"estimator": "grpo", "n": 1}, "n must be at least 2"),
        ({"loss": "trust_region", "dtype": "bf16"}, "dtype must be fp32, or auto"),
        ({"loss": "penalty", "mini_batch": 512}, "lower mini_batch or raise epochs"),
        ({"batch_size": 10, "n": 4}, "batch_size 10 is not a multiple of n 4"),
        ({"truncated": "never"}, "truncated"),
        ({"beta": 0, "adaptive_kl": {}}, "adaptive_kl multiplies beta, which must be above 0"),
        ({"beta": 0, "kl_budget": 5, "over_budget": "rollback"}, "rollback multiplies beta"),
        ({"estimator": "grpo", "n": 2, "adaptive_kl": {}}, "grpo charges its KL in the loss, at a constant beta"),
        ({"adaptive_kl": {"target": 0}}, "adaptive_kl.target"),
        ({"reward_clip": 0}, "reward_clip"),
    ],
)
def test_what_cannot_go_together_is_refused(settings: dict[str, Any], what: str) -> None:
    with pytest.raises(BadInput, match=what):
        parse_config(Algorithm, settings)
