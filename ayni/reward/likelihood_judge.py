"""A language model as a judge that is asked nothing: of two answers the one it finds likelier is better.

For models too small to read a question with two options. What such a model has read it knows: an answer that it would
hardly give is wrong, broken or not as its demonstrations are. With a `reference` only that counts which the judge has
learnt since: log p − log p_0, the implicit reward of DPO (Rafailov et al. 2023, §4) without its β.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ayni.errors import BadInput
from ayni.model.role import Role
from ayni.records import Prompt
from ayni.reward.verdicts import Verdict
from ayni.rollout.local import LocalEngine
from ayni.text.chat import answer_tokens
from ayni.train.reference import logprob_sums


@dataclass(frozen=True)
class LikelihoodJudge:
    """A `PairJudge` that says the same each time, and in each order.

    With s the mean over an answer's tokens (EOS included) of log p(y|x), or of log p(y|x)/p_0(y|x), and n the mean
    length of the two answers in tokens: P(a is better) = σ(√n · (s_a − s_b)). Means, as RRHF ranks (Yuan et al. 2023):
    sums would prefer the shorter answer. √n, because the mean of more tokens is the surer one. An answer that was cut
    off is read as if it ended there: the EOS that its policy did not draw counts against it.
    """

    engine: LocalEngine
    reference: Role | None = None
    tokens_per_pass: int = 8192

    @property
    def name(self) -> str:
        return self.engine.name

    @property
    def varies(self) -> bool:
        return False

    def verdicts(
        self, prompts: Sequence[Prompt], firsts: Sequence[str], seconds: Sequence[str], *, times: int = 1
    ) -> list[Verdict]:
        tokenizer = self.engine.tokenizer
        pairs = list(zip(prompts, firsts, seconds, strict=True))
        answers = [answer_tokens(p.dialog, answer, tokenizer) for p, a, b in pairs for answer in (a, b)]
        sums = logprob_sums(self.engine.role, answers, self.tokens_per_pass).double()
        if self.reference is not None:
            sums -= logprob_sums(self.reference, answers, self.tokens_per_pass).double()
        lengths = torch.tensor([sum(answer.mask) for answer in answers], dtype=torch.float64)
        means, n = (sums / lengths).view(-1, 2), lengths.view(-1, 2).mean(1)
        found = torch.sigmoid(n.sqrt() * (means[:, 0] - means[:, 1])).tolist()
        return [Verdict((p,) * times, (p,) * times) for p in found]

    def safe(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
        if not prompts:
            return []
        raise BadInput("how likely an answer is does not say whether it is safe", field="safety_labels", fix="false")

    def fits(self, prompt: Prompt, first: str, second: str) -> bool:
        context = min(role.context for role in (self.engine.role, self.reference) if role is not None)
        both = (answer_tokens(prompt.dialog, text, self.engine.tokenizer) for text in (first, second))
        return max(len(answer.tokens) for answer in both) <= context
