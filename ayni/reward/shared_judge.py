"""A judge whose work the ranks share: each asks about its part of the pairs, and all have every verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ayni.parallel import Ranks
from ayni.records import Prompt
from ayni.reward.verdicts import PairJudge, Verdict


@dataclass(frozen=True)
class SharedJudge:
    judge: PairJudge
    ranks: Ranks

    @property
    def name(self) -> str:
        return self.judge.name

    @property
    def varies(self) -> bool:
        return self.judge.varies

    def verdicts(
        self, prompts: Sequence[Prompt], firsts: Sequence[str], seconds: Sequence[str], *, times: int = 1
    ) -> list[Verdict]:
        share = self.ranks.share
        return self.ranks.gather(self.judge.verdicts(share(prompts), share(firsts), share(seconds), times=times))

    def safe(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
        return self.ranks.gather(self.judge.safe(self.ranks.share(prompts), self.ranks.share(answers)))

    def fits(self, prompt: Prompt, first: str, second: str) -> bool:
        return self.judge.fits(prompt, first, second)
