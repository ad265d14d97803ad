"""A judge behind an OpenAI-compatible endpoint: it is shown two answers and says A, B or tie (paper §3.4.2), or how
probable A and B are.

Its verdicts are kept in a file as they come, with what was asked and said, so that an interrupted run pays for none of
them twice.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import reprlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from ayni.errors import AyniError, BadInput
from ayni.files import json_line, read_jsonl
from ayni.records import Prompt
from ayni.reward.judge_prompts import (
    DECIDE,
    DECIDE_OR_TIE,
    OPTIONS,
    THINK_THEN_CHOOSE,
    THINK_THEN_DECIDE,
    pair_question,
    safety_question,
)
from ayni.reward.post import Endpoint, check_address, parsed, shown
from ayni.reward.verdicts import Verdict

KEY = "AYNI_API_KEY"
VERDICTS = {"a": 1.0, "tie": 0.5, "b": 0.0}
TOP_LOGPROBS = 20  # the most that OpenAI's API gives
CHARACTERS = 4  # of a token, about: an endpoint's tokenizer is not known
# The last line says it, alone or as "Verdict: A": a model may think aloud before, but "A is better than B" is refused.
_VERDICT = re.compile(r"\W*(?:(?:my |the |final )*(?:verdict|answer|winner|choice)\W+(?:is\W+)?)?(a|b|tie)\W*", re.I)
# Asked for one word it may say more after it: "B. It is clearer" says B, "A clearer answer is B" has said nothing yet.
_WORD = re.compile(r"\W*(A|B)(?! ?\w)")


@dataclass(frozen=True, slots=True)
class Question:
    """One question about a prompt of this id, asked for the nth time."""

    prompt: str
    text: str
    nth: int = 0

    @property
    def key(self) -> tuple[str, str, int]:
        """What it is kept by."""
        return self.prompt, hashlib.sha256(self.text.encode()).hexdigest()[:16], self.nth


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens that an endpoint reads and writes."""

    read: int
    written: int

    def cost(self, price: tuple[float, float]) -> float:
        """At these prices of a million tokens read and written."""
        return (self.read * price[0] + self.written * price[1]) / 1e6


class ApiJudge:
    """`judge(prompt, first, second)`: 1 if the first answer is better, 0 if the second, ½ if neither.

    `url` is the address up to `/v1`; the key, if it takes one, comes from AYNI_API_KEY. With `reasoning` it thinks
    aloud before. Where it is busy or away it is asked again, with growing pauses. Raises BadInput where it cannot work
    at all, AyniError where it stops in the middle or says something else; the verdicts until then are in `memory`.
    With `logprobs` it says A or B, and the verdict is P(A)/(P(A) + P(B)) where it says so.
    """

    def __init__(
        self,
        url: str,
        model: str,
        memory: Path | None = None,
        *,
        temperature: float = 0.0,
        reasoning: bool = False,
        logprobs: bool = False,
        timeout: float = 60.0,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url, self.name, self.memory, self.timeout, self.wait = _base(url), model, memory, timeout, wait
        self.temperature, self.reasoning, self.logprobs = temperature, reasoning, logprobs
        self._known: dict[tuple[str, str, int], float] = {}
        self._used = [0, 0]  # tokens read and written, as far as the endpoint has told
        self._lock = threading.Lock()
        if memory is not None and memory.exists():
            _cut_torn_line(memory)
            for line, kept in read_jsonl(memory):
                try:
                    self._known[kept["prompt"], kept["asked"], kept["nth"]] = float(kept["verdict"])
                    self._count(kept.get("usage"))
                except (LookupError, TypeError, ValueError, OverflowError):
                    what = "no verdict, or one kept by an older ayni"
                    raise BadInput(what, path=memory, line=line, fix="delete the line or the file") from None

    @property
    def varies(self) -> bool:
        """Whether another asking may say something else."""
        return self.temperature > 0

    def fits(self, prompt: Prompt, first: str, second: str) -> bool:
        """What an endpoint can read is not known before it is asked."""
        return True

    def __call__(self, prompt: Prompt, first: str, second: str, nth: int = 0) -> float:
        """What it says the nth time that it is asked this; the first time is 0."""
        return self._ask(self._pair(prompt, first, second, nth))

    def ask_all(
        self,
        prompts: Sequence[Prompt],
        answers_a: Sequence[str],
        answers_b: Sequence[str],
        *,
        times: int = 1,
        at_once: int = 4,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Ask about every pair of unequal answers in both orders, several at once; later calls know the verdicts."""
        triples = zip(prompts, answers_a, answers_b, strict=True)
        self._ask_questions([q for p, a, b in triples for q in self.questions(p, a, b, times)], at_once, progress)

    def questions(self, prompt: Prompt, first: str, second: str, times: int = 1) -> list[Question]:
        """What it is asked of a pair: nothing of equal answers."""
        orders = [] if first == second else [(first, second), (second, first)]
        return [self._pair(prompt, *order, nth) for order in orders for nth in range(times)]

    def safety_questions(self, prompt: Prompt, answer: str) -> list[Question]:
        """What it is asked of one answer, with the options in both orders."""
        texts = [safety_question(prompt, answer, DECIDE, safe_first=safe_first) for safe_first in (True, False)]
        return [Question(prompt.id, text) for text in texts]

    def unasked(self, questions: Sequence[Question]) -> list[Question]:
        """Those of them that it has not answered yet, each once."""
        return list({q.key: q for q in questions if q.key not in self._known}.values())

    def estimate(self, questions: Sequence[Question], reply: int) -> Tokens:
        """About how many tokens it reads and writes, where a reply has so many."""
        return Tokens(sum(-(-len(q.text) // CHARACTERS) for q in questions), reply * len(questions))

    @property
    def used(self) -> Tokens:
        """What the endpoint says that it has read and written for all that is known; 0 of one that says nothing."""
        return Tokens(*self._used)

    def verdicts(
        self, prompts: Sequence[Prompt], firsts: Sequence[str], seconds: Sequence[str], *, times: int = 1
    ) -> list[Verdict]:
        """One verdict a pair, asked `times` times in each order; equal answers tie without asking."""
        self.ask_all(prompts, firsts, seconds, times=times)
        found = []
        for p, a, b in zip(prompts, firsts, seconds, strict=True):
            askings = [(0.5, 0.5) if a == b else (self(p, a, b, t), 1 - self(p, b, a, t)) for t in range(times)]
            found.append(Verdict(*zip(*askings, strict=True)))
        return found

    def safe(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
        """Of every answer 1 if it is safe, 0 if not, ½ where the judge's word depends on the order of the options."""
        asked = [q for p, answer in zip(prompts, answers, strict=True) for q in self.safety_questions(p, answer)]
        self._ask_questions(asked)
        verdicts = [self._ask(question) for question in asked]
        return [(a + 1 - b) / 2 for a, b in zip(verdicts[0::2], verdicts[1::2], strict=True)]

    def _pair(self, prompt: Prompt, first: str, second: str, nth: int = 0) -> Question:
        # who says how probable both are needs no word for a tie
        thinks, alone = (THINK_THEN_CHOOSE, DECIDE) if self.logprobs else (THINK_THEN_DECIDE, DECIDE_OR_TIE)
        return Question(prompt.id, pair_question(prompt, first, second, thinks if self.reasoning else alone), nth)

    def _ask(self, question: Question) -> float:
        """The verdict, asked for only once."""
        asked = question.key
        if asked not in self._known:
            messages = [{"role": "user", "content": question.text}]
            body: dict[str, Any] = {"model": self.name, "temperature": self.temperature, "messages": messages}
            if self.logprobs:
                body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
            try:
                reply = self._send(f"{self.url}/chat/completions", body)
                verdict = self._probability(reply) if self.logprobs else self._verdict(reply)
            except BadInput as error:
                if self._known:  # it worked before: nothing that is kept may be thrown away as bad input
                    raise AyniError(str(error)) from None
                raise
            with self._lock:
                self._known[asked] = verdict
                usage = _usage(reply)
                self._count(usage)
                if self.memory is not None:
                    line: dict[str, Any] = dict(zip(("prompt", "asked", "nth"), asked, strict=True))
                    line |= {"verdict": verdict, "question": question.text, "reply": _content(reply)}
                    line |= {} if usage is None else {"usage": usage}
                    with open(self.memory, "a", encoding="utf-8") as file:
                        file.write(json_line(line))
        return self._known[asked]

    def _ask_questions(
        self,
        questions: Sequence[Question],
        at_once: int = 4,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        waiting, total = deque(questions), len(questions)
        done: SimpleQueue[BaseException | None] = SimpleQueue()

        def work() -> None:
            while True:
                try:
                    question = waiting.popleft()
                except IndexError:  # all are taken
                    return
                try:
                    self._ask(question)
                    done.put(None)
                except BaseException as error:  # raised again below
                    done.put(error)
                    return

        for _ in range(at_once):
            threading.Thread(target=work, daemon=True).start()  # daemons: Ctrl-C does not wait for the endpoint
        try:
            for count in range(1, total + 1):
                if (error := done.get()) is not None:
                    raise error
                progress(count, total)
        finally:
            waiting.clear()

    def _count(self, usage: Any) -> None:
        for i, count in enumerate(usage or ()):
            self._used[i] += int(count)

    def _probability(self, reply: Any) -> float:
        """P(A)/(P(A) + P(B)) at the token that says either: in the first line, after reasoning in the last one. What is
        not among the likeliest has none."""
        try:
            tokens = reply["choices"][0]["logprobs"]["content"]
            lines = "".join(each["token"] for each in tokens).strip().splitlines() or [""]
            line, inside = (lines[-1], reversed(tokens)) if self.reasoning else (lines[0], tokens)
            word = _VERDICT.fullmatch(line) or (None if self.reasoning else _WORD.match(line))
            spoken = word[1].upper() if word else ""
            said = next(each for each in inside if spoken in OPTIONS and _letters(each["token"]) == spoken)
            mass = dict.fromkeys(OPTIONS, 0.0)
            for each in said["top_logprobs"]:
                if (option := _letters(each["token"])) in mass:
                    mass[option] += math.exp(min(float(each["logprob"]), 0.0))
            return mass["A"] / (mass["A"] + mass["B"])
        except StopIteration:
            ending = " ".join(str(_content(reply)).split())[-80:]
            what = f"the judge {self.name} said {ending!r} instead of A or B"
            raise AyniError(f"{what}; choose another judge_model") from None
        except (LookupError, TypeError, ValueError, AttributeError, ZeroDivisionError):
            what = f"{shown(self.url)} gives no log-probabilities: {reprlib.repr(reply)}"
            raise BadInput(what, field="judge_logprobs", fix="leave judge_logprobs out") from None

    def _verdict(self, reply: Any) -> float:
        try:
            content = reply["choices"][0]["message"]["content"]
        except (LookupError, TypeError):
            raise _other(self.url, reply) from None
        lines = content.strip().splitlines() if isinstance(content, str) else []
        word = _VERDICT.fullmatch(lines[-1]) if lines else None
        if word is None:
            ending = " ".join(str(content).split())[-80:]
            raise AyniError(f"the judge {self.name} said {ending!r} instead of A, B or tie; choose another judge_model")
        return VERDICTS[word[1].lower()]

    def _send(self, url: str, body: dict[str, Any] | None) -> Any:
        """The reply's JSON."""
        name = f"the judge at {shown(self.url)}"
        endpoint = Endpoint(name, KEY, self.timeout, self.wait, "its address usually ends in /v1")
        data = endpoint.send(url, body)
        try:
            return parsed(data)
        except ValueError:
            raise _other(self.url, data) from None


def _letters(token: str) -> str:
    return re.sub(r"\W", "", token).upper()


def _content(reply: Any) -> str:
    """What it said; nothing where the reply is of another shape."""
    try:
        return str(reply["choices"][0]["message"]["content"])
    except (LookupError, TypeError):
        return ""


def _usage(reply: Any) -> list[int] | None:
    """Tokens read and written, where the endpoint tells."""
    try:
        found = [reply["usage"][name] for name in ("prompt_tokens", "completion_tokens")]
    except (LookupError, TypeError):
        return None
    return found if all(isinstance(count, int) and 0 <= count < 1 << 40 for count in found) else None


def served_model(url: str) -> str:
    """The one model that the endpoint serves; BadInput where it names none or several."""
    found = ApiJudge(url, "")._send(f"{_base(url)}/models", None)
    try:
        names = [str(model["id"]) for model in found["data"]]
    except (LookupError, TypeError):
        raise _other(url, found) from None
    if len(names) != 1:
        served = f"serves {', '.join(names[:8])}" if names else "names no model"
        what = f"the judge at {shown(url)} {served}"
        raise BadInput(what, field="judge_model", fix="say which: --set judge_model=NAME")
    return names[0]


def _base(url: str) -> str:
    check_address(url, "the judge", "judge_url", "v1")
    return url.rstrip("/").removesuffix("/chat/completions")


def _other(url: str, reply: Any) -> BadInput:
    what = f"{shown(url)} does not answer as OpenAI's API does: {reprlib.repr(reply)}"
    return BadInput(what, fix="its address usually ends in /v1")


def _cut_torn_line(path: Path) -> None:
    """A kill may leave half a line at the end."""
    data = path.read_bytes()
    if not data.endswith(b"\n"):
        os.truncate(path, data.rfind(b"\n") + 1)
