"""Our own language model as a judge: P(A) and P(B) after a question, by the log-probs of the two options.

As in Constitutional AI (Bai et al. 2022, §4.1) and RLAIF (Lee et al. 2023, §3.1); with `reasoning` in two steps: the
model first writes what speaks for each answer, then the options are scored after it.
Where we leave them: log-probs are of the option's text, all its tokens, as it is tokenised after the question.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ayni.errors import BadInput
from ayni.model.heads import token_logprobs
from ayni.model.layout import Layout
from ayni.model.rounding import hidden_states
from ayni.model.transformer import Transformer
from ayni.records import Message, Prompt
from ayni.reward.judge_prompts import DECIDE, OPTIONS, THEN_DECIDE, THINK, pair_question, safety_question
from ayni.reward.verdicts import Verdict
from ayni.rollout.engine import rollout
from ayni.rollout.local import LocalEngine
from ayni.rollout.sampling import Sampling
from ayni.text.chat import answer_tokens, render_prompt
from ayni.text.tokenizer import Tokenizer
from ayni.train.batch import cut

TOKENS_PER_PASS = 8192
CACHE_TOKENS = 1 << 16  # how many tokens of questions and reasoning are held at once while the model reasons


@dataclass(frozen=True, slots=True)
class Choice:
    """Tokens, and the tokens of two options as they fall after them."""

    context: list[int]
    options: tuple[list[int], list[int]]

    @property
    def rows(self) -> list[list[int]]:
        """What must be read: everything before each option's last token. Options of one token share their row."""
        # the last token is predicted, never read
        first, second = (self.context + option[:-1] for option in self.options)
        return [first] if first == second else [first, second]

    def __len__(self) -> int:
        return sum(map(len, self.rows))

    @property
    def longest(self) -> int:
        return max(map(len, self.rows))


def choice_of(before: list[int], question: str, tokenizer: Tokenizer, options: tuple[str, str] = OPTIONS) -> Choice:
    """The options as answers to `question`, asked after the finished turns `before`.

    Raises BadInput for a tokenizer that joins an option with what stands around it.
    """
    dialog = (Message("user", question),)
    context = render_prompt(dialog, tokenizer)
    first, second = (_option_tokens(dialog, option, len(context), tokenizer) for option in options)
    return Choice(before + context, (first, second))


def _option_tokens(dialog: tuple[Message, ...], option: str, start: int, tokenizer: Tokenizer) -> list[int]:
    """The option's tokens inside the rendered turn, without those that end the turn: its last space and EOS."""
    tokens = answer_tokens(dialog, option, tokenizer).tokens[start:]
    # by decoding: a tokenizer may split an option in several pieces or lend it a space
    for count in range(1, len(tokens)):
        if tokenizer.decode(tokens[:count]).lstrip(" ") == option:
            return tokens[:count]
    raise BadInput(f"this tokenizer joins the option {option!r} with the text around it")


@torch.no_grad()
def option_logprobs(model: Transformer, choices: Sequence[Choice], tokens_per_pass: int = TOKENS_PER_PASS) -> Tensor:
    """log p(option | context), summed over the option's tokens: (N, 2) in fp64, in order."""
    out = torch.zeros(len(choices), 2, dtype=torch.float64)
    order = sorted(range(len(choices)), key=lambda i: len(choices[i]))
    done = 0
    for part in cut([choices[i] for i in order], tokens_per_pass):
        rows = [row for choice in part for row in choice.rows]
        layout = Layout.of([len(row) for row in rows], model.device)
        tokens = torch.tensor([t for row in rows for t in row], device=model.device)
        hidden = hidden_states(model, tokens, layout, model.dtype or model.head.dtype)
        # both options read the same hidden states; their columns and targets differ
        for which in (0, 1):
            targets, mask, owner = _targets(part, which, len(hidden))
            logprobs = token_logprobs(hidden[mask], model.head, targets[mask].to(model.device))
            out[:, which].index_add_(0, torch.tensor(order[done : done + len(part)])[owner], logprobs.cpu().double())
        done += len(part)
    return out


def _targets(part: list[Choice], which: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """targets (T,): the option's tokens at the columns that predict them, mask (T,): those, and owner (M,): whose."""
    targets, mask, owner = torch.zeros(columns, dtype=torch.long), torch.zeros(columns, dtype=torch.bool), list[int]()
    start = 0
    for i, choice in enumerate(part):
        rows, option = choice.rows, choice.options[which]
        # the second option's row stands after the first's, unless they share one
        before = len(rows[0]) if which and len(rows) == 2 else 0
        # the column that predicts the option's first token
        first = start + before + len(choice.context) - 1
        targets[first : first + len(option)] = torch.tensor(option)
        mask[first : first + len(option)] = True
        owner += [i] * len(option)
        start += len(choice)
    return targets, mask, torch.tensor(owner)


@dataclass(frozen=True)
class OptionJudge:
    """A `PairJudge`. `reasoning` says how it reasons first, if at all; what it draws depends on `seed`, the question
    and the number of the asking alone. Without reasoning, or at temperature 0, it says the same each time.
    """

    engine: LocalEngine
    reasoning: Sampling | None = None
    seed: int = 0
    tokens_per_pass: int = TOKENS_PER_PASS

    @property
    def name(self) -> str:
        return self.engine.name

    @property
    def varies(self) -> bool:
        """Whether another asking may say something else."""
        return self.reasoning is not None and self.reasoning.temperature > 0

    def verdicts(
        self, prompts: Sequence[Prompt], firsts: Sequence[str], seconds: Sequence[str], *, times: int = 1
    ) -> list[Verdict]:
        """One verdict a pair, asked `times` times in each order.

        Raises BadInput when a question does not fit the model's context (`fits` tells), ValueError for several
        askings of a judge that does not vary.
        """
        if times > 1 and not self.varies:
            raise ValueError(f"asked {times} times, this judge says {times} times the same")
        end = DECIDE if self.reasoning is None else THINK
        # both orders, side by side: a liking for a place cancels (Lee et al. 2023, §3.1)
        pairs = zip(prompts, firsts, seconds, strict=True)
        asked = [pair_question(p, x, y, end) for p, a, b in pairs for x, y in ((a, b), (b, a))]
        probabilities = self._first_options(asked, times)
        return [
            Verdict(tuple(forward), tuple(1 - p for p in backward))
            for forward, backward in zip(probabilities[0::2], probabilities[1::2], strict=True)
        ]

    def safe(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
        """P(safe) of every answer, averaged over both orders of the options; asked without reasoning."""
        asked = [
            safety_question(p, answer, DECIDE, safe_first=safe_first)
            for p, answer in zip(prompts, answers, strict=True)
            for safe_first in (True, False)
        ]
        probabilities = self._probabilities([choice_of([], text, self.engine.tokenizer) for text in asked])
        return [(a + 1 - b) / 2 for a, b in zip(probabilities[0::2], probabilities[1::2], strict=True)]

    def fits(self, prompt: Prompt, first: str, second: str) -> bool:
        """Whether there is room for all that it may be asked of this pair, its reasoning included."""
        tokenizer, pairs = self.engine.tokenizer, ((first, second), (second, first))
        if self.reasoning is None:
            more, end = 0, DECIDE
        else:
            more, end = self.reasoning.max_tokens + 1 + choice_of([], THEN_DECIDE, tokenizer).longest, THINK
        needed = [choice_of([], pair_question(prompt, x, y, end), tokenizer).longest + more for x, y in pairs]
        if prompt.task == "safety":
            texts = [safety_question(prompt, x, DECIDE, safe_first=s) for x, _ in pairs for s in (True, False)]
            needed += [choice_of([], text, tokenizer).longest for text in texts]
        return max(needed) <= self.engine.context

    def _first_options(self, questions: list[str], times: int) -> list[list[float]]:
        """P(A) of every question, asking by asking: (Q, times)."""
        tokenizer = self.engine.tokenizer
        if self.reasoning is None:
            return [[p] for p in self._probabilities([choice_of([], text, tokenizer) for text in questions])]
        thoughts = self._thoughts(questions, self.reasoning, times)
        probabilities = self._probabilities([choice_of(t, THEN_DECIDE, tokenizer) for t in thoughts])
        return [probabilities[i : i + times] for i in range(0, len(probabilities), times)]

    def _thoughts(self, questions: list[str], sampling: Sampling, times: int) -> list[list[int]]:
        """Question and reasoning as a finished turn, of the tokens that were sampled; `times` a question, in order."""
        heads = [render_prompt((Message("user", text),), self.engine.tokenizer) for text in questions]
        room = max(map(len, heads), default=0) + sampling.max_tokens
        size = max(1, CACHE_TOKENS // (room * times))
        found = []
        for start in range(0, len(questions), size):
            part = slice(start, start + size)
            prompts = [Prompt(_digest(text), (Message("user", text),)) for text in questions[part]]
            groups = rollout(self.engine, prompts, n=times, sampling=sampling, seed=self.seed)
            for sample in (sample for group in groups for sample in group):
                # thoughts that were cut off are closed, for the next turn asks for the verdict
                end = [] if sample.finished == "stop" else [self.engine.tokenizer.eos]
                found.append([*sample.prompt_tokens, *sample.tokens, *end])
        return found

    def _probabilities(self, choices: list[Choice]) -> list[float]:
        """P(A) / (P(A) + P(B)) of every choice."""
        context = self.engine.context
        for choice in choices:
            if choice.longest > context:
                raise BadInput(f"a question of {choice.longest} tokens does not fit the judge's context of {context}")
        logprobs = option_logprobs(self.engine.role.model, choices, self.tokens_per_pass)
        # P(A) / (P(A) + P(B)) is σ of the difference of log-probs
        return torch.sigmoid(logprobs[:, 0] - logprobs[:, 1]).tolist()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
