"""PPO: an iteration is 16 prompts of at most 64 tokens, an answer of 128 to each, two mini-batches of 8.

    python -m benchmarks.ppo --shape A --dtype fp32 bf16

Four models of one shape: policy and critic learn, reference and reward model are frozen. The peer is TRL 1.12.0, the
last release with PPO. Ours also says where its seconds go: sampling, scoring, reading (log-probs, reference, values),
learning. In bf16 both keep fp32 weights of what learns; TRL samples under its own rules (fp32 where accelerate does not
cast). Answers are random, so equal work means equal counts and the samples' entropy, which both report.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ayni.config import parse_config
from ayni.model.placement import Placement
from ayni.model.role import Role
from ayni.online.algorithm import Algorithm
from ayni.online.loop import Loop
from ayni.parallel import Ranks
from ayni.records import Message, Prompt
from ayni.reward.combine import CombinedReward
from ayni.reward.model import RewardModel
from ayni.rollout.local import LocalEngine
from ayni.run import Run
from ayni.seeds import rng
from benchmarks.data import ROWS, start, tokens
from benchmarks.number_text import number_tokenizer
from benchmarks.options import Options
from benchmarks.reward import scorer
from benchmarks.side import Turns
from benchmarks.work import OURS, Work, main

ANSWER, PARTS = 128, 2  # tokens of an answer, mini-batches of an iteration
SETTINGS: dict[str, Any] = {
    "batch_size": ROWS,
    "mini_batch": ROWS // PARTS,
    "max_tokens": ANSWER,
    "beta": 0.05,
    "truncated": "scored",  # answers of one length: all are cut off
    "optimiser": {"lr": 1e-5, "schedule": "constant", "warmup": 0},
    "critic_optimiser": {"lr": 1e-5, "schedule": "constant", "warmup": 0},
}


def prompts(options: Options) -> list[Prompt]:
    """16 for every iteration, of 16 to 64 tokens with the format's own three."""
    draw = rng("benchmark", "prompts")
    sizes = draw.integers(16, 65, ROWS * options.all_steps).tolist()
    texts = [" ".join(map(str, tokens(draw, options.shape, n - 3))) for n in sizes]
    return [Prompt(str(i), (Message("user", text),), "helpfulness") for i, text in enumerate(texts)]


class Clock:
    """Adds up the seconds of the calls it is put around."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    def around(self, owner: Any, method: str, part: str) -> None:
        """Counts `owner.method` as `part`."""
        inner: Callable[..., Any] = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            found = inner(*args, **kwargs)
            if self.device == "cuda":
                torch.cuda.synchronize()
            self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - began
            return found

        object.__setattr__(owner, method, timed)  # frozen parts too


def loop_of(options: Options, directory: Path) -> tuple[Loop, Clock]:
    """The loop over four models, timed at its joints."""
    placement = Placement(Ranks(device=options.device), options.torch_dtype)
    algorithm = parse_config(Algorithm, {**SETTINGS, "iterations": options.all_steps})
    tokenizer = number_tokenizer()
    policy, reference = (Role(placement.place(start(options.shape))) for _ in range(2))
    critic, judge = (Role(placement.place(scorer(options.shape))) for _ in range(2))
    for role in (reference, judge):
        role.model.requires_grad_(False)
    loop = Loop(
        algorithm,
        Run(directory, name="ppo", seed=1, quiet=True),
        engine=LocalEngine(policy, tokenizer, "policy", placement.ranks),
        policy=algorithm.policy(policy, placement),
        reward=CombinedReward(RewardModel(judge, tokenizer), None, tokenizer),
        estimator=algorithm.estimated(),
        reference=reference,
        critic=algorithm.critic(critic, placement),
    )
    clock = Clock(options.device)
    clock.around(loop.engine, "generate", "sampling")
    clock.around(loop, "reward", "scoring")
    clock.around(loop, "_read", "reading")
    for learner in (loop.policy, loop.critic):
        clock.around(learner, "learn", "learning")
    return loop, clock


def ours(options: Options, turns: Turns) -> None:
    turns.imported()
    asked = prompts(options)
    with tempfile.TemporaryDirectory() as directory:
        loop, clock = loop_of(options, Path(directory))
        for turn in turns:
            clock.seconds = {}
            for step in range(turn * options.steps, (turn + 1) * options.steps):
                loop.iterate(asked[step * ROWS : (step + 1) * ROWS])
            entropy = [line["entropy"] for line in loop.run.metrics()[-options.steps :]]
            turns.end(ROWS * options.steps, losses=entropy, split=clock.seconds)


def trl(options: Options, turns: Turns) -> None:
    sys.path.insert(0, str(Path(sys.prefix) / "trl-1.12"))  # beside the newer one, and before it
    from benchmarks.ppo_trl import train

    train(options, turns)


SIDES = {OURS: ours, "trl 1.12": trl}
WORK = Work("ppo", "samples/s", SIDES, tolerance={"fp32": 0.02, "bf16": 0.02})

if __name__ == "__main__":
    main(WORK, __doc__ or "")
