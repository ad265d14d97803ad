"""A reward model: a trunk with a scalar head, and the tokenizer it was trained with (paper §3.2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ayni.cores import side_by_side
from ayni.errors import BadInput
from ayni.model.placement import Placement
from ayni.model.role import Role
from ayni.model.score_scale import ScoreScale
from ayni.model_directory import EXTRA, Trunks, load_model, read_extra
from ayni.records import Dialog, Finished, Message, Prompt, Sample, TokenSequence
from ayni.run import name_of
from ayni.text.chat import render
from ayni.text.tokenizer import Tokenizer
from ayni.train.batch import batch_of
from ayni.train.shares import shares

# as a micro-batch of training, but without its gradients: memory is no concern
TOKENS_PER_PASS = 8192


class Reward(Protocol):
    """What may choose among answers: a reward model, or a function of the user's (ayni.reward.function)."""

    def score_samples(self, prompts: Sequence[Prompt], groups: Sequence[Sequence[Sample]], policy: Tokenizer) -> Tensor:
        """The raw score of every sample, higher is better: (N·n,) in order."""
        ...


@dataclass(frozen=True)
class RewardModel:
    """Scores are raw (before σ and margin), fp32. A reward model owns its tokenizer: any policy can be scored."""

    role: Role
    tokenizer: Tokenizer
    name: str = ""
    scale: ScoreScale = ScoreScale()

    @torch.no_grad()
    def score_tokens(self, rows: Sequence[list[int]]) -> Tensor:
        """The raw score of every token row, read at its last token: (N,)."""
        context, vocab = self.role.context, self.role.model.shape.vocab
        for i, row in enumerate(rows):
            if not all(0 <= token < vocab for token in row):
                raise BadInput(f"answer {i}: a token that is none of the reward model's {vocab}")
            if len(row) > context:
                raise BadInput(f"answer {i}: {len(row)} tokens do not fit the reward model's context of {context}")

        def read(part: Sequence[TokenSequence]) -> Tensor:
            return self.role.scores(batch_of(part, alike=True).to(self.role.device)).float().cpu()

        # the answers to one prompt beside each other: it is read once
        order = sorted(range(len(rows)), key=rows.__getitem__)
        sequences = [TokenSequence(rows[i], [False] * len(rows[i])) for i in order]
        scores = side_by_side(read, shares(sequences, TOKENS_PER_PASS, self.role.device))
        out = torch.empty(len(rows))
        if order:
            # back to the order they were asked in
            out[torch.tensor(order)] = torch.cat(scores)
        return out

    def scores(self, dialogs: Sequence[Dialog], finished: Sequence[Finished | None] | None = None) -> Tensor:
        """The raw score of the last answer of every dialogue: (N,). Those that `finished` calls cut off have no EOS."""
        ends = [None] * len(dialogs) if finished is None else finished
        rows = [render(d, self.tokenizer, "last", end).tokens for d, end in zip(dialogs, ends, strict=True)]
        return self.score_tokens(rows)

    def score_answers(
        self, prompts: Sequence[Prompt], answers: Sequence[str], finished: Sequence[Finished | None] | None = None
    ) -> Tensor:
        """(N,) for N prompts with one answer each."""
        dialogs = [(*p.dialog, Message("assistant", a)) for p, a in zip(prompts, answers, strict=True)]
        return self.scores(dialogs, finished)

    def score_samples(self, prompts: Sequence[Prompt], groups: Sequence[Sequence[Sample]], policy: Tokenizer) -> Tensor:
        """(N·n,) in order. With the policy's own tokenizer the sampled tokens are read as they were drawn."""
        pairs = [(p, s) for p, group in zip(prompts, groups, strict=True) for s in group]
        # another tokenisation of the same text would have another score
        if policy.fingerprint == self.tokenizer.fingerprint:
            return self.score_tokens([[*s.prompt_tokens, *s.tokens] for _, s in pairs])
        return self.score_answers([p for p, _ in pairs], [s.text for _, s in pairs], [s.finished for _, s in pairs])


def load_reward(path: Path, placement: Placement = Placement(), trunks: Trunks | None = None) -> RewardModel:
    """A reward model from its directory; with `trunks`, adapters of one base share it.

    Raises BadInput if it holds a language model: a head is never made up.
    """
    model, tokenizer = load_model(path, expect="score", trunks=trunks)
    scale = ScoreScale.of(read_extra(path), Path(path) / EXTRA)
    return RewardModel(Role(placement.place(model.requires_grad_(False))), tokenizer, name_of(path), scale)
