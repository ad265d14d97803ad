"""Which step of a training run is kept: the one whose answers to validation prompts a reward model likes best.

LIMA (Zhou et al. 2023, §3, appendix B): held-out perplexity rises while answers become better, so people chose the
checkpoint by 50 prompts, from the fifth epoch on. Here a reward model chooses in their place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ayni.config import Config, Field
from ayni.errors import BadInput
from ayni.evaluate.splits import check_split
from ayni.formats.reading import read_prompts_of
from ayni.maths.rewards import penalise_cut
from ayni.model.placement import Placement
from ayni.model.role import Role
from ayni.parallel import Ranks
from ayni.records import Prompt
from ayni.reward.model import RewardModel, load_reward
from ayni.rollout.engine import rollout, with_room
from ayni.rollout.local import LocalEngine
from ayni.rollout.sampling import Sampling
from ayni.run import Run
from ayni.seeds import rng, seed_of
from ayni.text.tokenizer import Tokenizer
from ayni.train.checkpoint import load_checkpoint, save_checkpoint
from ayni.train.trainer import Fitting, steps_per_epoch, total_steps


class CheckpointChoice(Config):
    """When to look, and how answers are drawn: LIMA's settings."""

    first: float = Field(5, ge=0, description="epochs before the first look")
    every: float = Field(1, gt=0, description="epochs between two looks; the last step is looked at, too")
    prompts: int = Field(50, ge=1, description="validation prompts that ask for help, chosen by the seed")
    temperature: float = Field(0.7, ge=0)
    top_p: float = Field(0.9, gt=0, le=1)
    repetition_penalty: float = Field(1.2, ge=1)
    max_tokens: int = Field(256, ge=1, description="longest answer")

    def looks(self, per_epoch: int, steps: int) -> list[int]:
        """The steps after which to look."""
        apart = max(1, round(self.every * per_epoch))
        return sorted({*range(round(self.first * per_epoch) or apart, steps, apart), steps})


class CheckpointChooser:
    """Looks at a model while it is trained, and keeps the weights of the best look beside the run's checkpoints.

    A look draws by prompt and seed alone: taken again after a kill it says the same, and what was kept stays.
    """

    def __init__(
        self,
        choice: CheckpointChoice,
        looks: Sequence[int],
        prompts: Sequence[Prompt],
        reward: RewardModel,
        tokenizer: Tokenizer,
        run: Run,
    ) -> None:
        self.choice, self.looks, self.reward, self.tokenizer, self.run = choice, {*looks}, reward, tokenizer, run
        order = rng(run.seed, run.name, "validation").permutation(len(prompts))[: choice.prompts]
        self.prompts = [prompts[i] for i in order]
        self.place = run.checkpoints / "best"
        self.engine: LocalEngine | None = None
        kept = load_checkpoint(self.place)
        self.best: float | None = None if kept is None else float(kept[2]["reward"])

    def __call__(self, role: Role, ranks: Ranks, step: int) -> dict[str, float]:
        """After a step: `validation_reward`, where it is time to look."""
        if step not in self.looks:
            return {}
        found = self.mean_reward(role, ranks)
        if ranks.leads and (self.best is None or found > self.best):
            save_checkpoint(self.place, step, dict(role.trainable()), {"reward": found})
            self.best = found
        return {"validation_reward": found}

    def mean_reward(self, role: Role, ranks: Ranks) -> float:
        """Of one answer to every prompt; a cut-off one counts less than any that ended."""
        if self.engine is None:
            self.engine = LocalEngine(role, self.tokenizer, self.run.name, ranks)
            fit = {"max_tokens": self.choice.max_tokens, "read": self.reward.role.context}
            self.prompts = with_room(self.prompts, [self.engine], self.run.say, **fit)
        self.engine.sync(role)
        c = self.choice
        sampling = Sampling(c.temperature, c.top_p, c.max_tokens, c.repetition_penalty)
        seed = seed_of(self.run.seed, self.run.name, "validation")
        groups = rollout(self.engine, self.prompts, n=1, sampling=sampling, seed=seed)
        scores = self.reward.score_samples(self.prompts, groups, self.tokenizer)
        cut = torch.tensor([sample.finished == "length" for (sample,) in groups])
        return float(penalise_cut(scores, cut).double().mean())

    def restore(self, role: Role) -> int:
        """Puts the best look's weights back; its step."""
        kept = load_checkpoint(self.place)
        if kept is None:
            raise BadInput("the best checkpoint is gone", path=self.place, fix="use --fresh to start over")
        step, tensors, _ = kept
        with torch.no_grad():
            for name, parameter in role.trainable().items():
                parameter.copy_(tensors[name])
        return step


def checkpoint_chooser(
    choice: CheckpointChoice,
    fitting: Fitting,
    inputs: Mapping[str, Any],
    tokenizer: Tokenizer,
    dialogues: int,
    run: Run,
) -> CheckpointChooser | None:
    """Who looks at the model while it is trained; None where the last step is kept."""
    if bool(inputs.get("validation")) != bool(inputs.get("reward")):
        raise BadInput(
            "validation prompts and a reward belong together", field="validation", fix="give both, or neither"
        )
    if not inputs.get("validation"):
        return None
    asked = read_prompts_of(inputs["validation"])
    check_split(asked, final=False, path=inputs["validation"][0])
    # to an unsafe prompt a model of helpfulness likes the answer that obeys
    prompts = [prompt for prompt in asked if prompt.task == "helpfulness"]
    if not prompts:
        raise BadInput("no prompt asks for help", path=inputs["validation"][0], fix="give some of task helpfulness")
    if choice.first >= fitting.epochs:
        what = f"the first look is after {choice.first:g} epochs, and there are {fitting.epochs:g}"
        raise BadInput(what, field="choice.first", fix="look earlier, or train longer")
    reward = load_reward(inputs["reward"], Placement.of(run, fitting.dtype))
    steps = total_steps(dialogues, fitting.batch_size, fitting.epochs)
    looks = choice.looks(steps_per_epoch(dialogues, fitting.batch_size), steps)
    return CheckpointChooser(choice, looks, prompts, reward, tokenizer, run)
