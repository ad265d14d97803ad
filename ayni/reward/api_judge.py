"""A judge behind an OpenAI-compatible endpoint: it is shown two answers and says A, B or tie (paper §3.4.2).

Its verdicts are kept in a file as they come, so that an interrupted run pays for none of them twice.
"""

from __future__ import annotations

import hashlib
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
from ayni.reward.judge_prompts import DECIDE, DECIDE_OR_TIE, THINK_THEN_DECIDE, pair_question, safety_question
from ayni.reward.post import Endpoint, check_address, parsed, shown
from ayni.reward.verdicts import Verdict

KEY = "AYNI_API_KEY"
VERDICTS = {"a": 1.0, "tie": 0.5, "b": 0.0}
# The last line says it, alone or as "Verdict: A": a model may think aloud before, but "A is better than B" is refused.
_VERDICT = re.compile(r"\W*(?:(?:my |the |final )*(?:verdict|answer|winner|choice)\W+(?:is\W+)?)?(a|b|tie)\W*", re.I)


@dataclass(frozen=True, slots=True)
class _Question:
    """One question about a prompt of this id, asked for the nth time."""

    prompt: str
    text: str
    nth: int = 0


class ApiJudge:
    """`judge(prompt, first, second)`: 1 if the first answer is better, 0 if the second, ½ if neither.

    `url` is the address up to `/v1`; the key, if it takes one, comes from AYNI_API_KEY. With `reasoning` it thinks
    aloud before. Where it is busy or away it is asked again, with growing pauses. Raises BadInput where it cannot work
    at all, AyniError where it stops in the middle or says something else; the verdicts until then are in `memory`.
    """

    def __init__(
        self,
        url: str,
        model: str,
        memory: Path | None = None,
        *,
        temperature: float = 0.0,
        reasoning: bool = False,
        timeout: float = 60.0,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url, self.name, self.memory, self.timeout, self.wait = _base(url), model, memory, timeout, wait
        self.temperature, self.reasoning = temperature, reasoning
        self._known: dict[tuple[str, str, int], float] = {}
        self._lock = threading.Lock()
        if memory is not None and memory.exists():
            _cut_torn_line(memory)
            for line, kept in read_jsonl(memory):
                try:
                    self._known[kept["prompt"], kept["asked"], kept["nth"]] = float(kept["verdict"])
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
        pairs = [(p, a, b) for p, a, b in zip(prompts, answers_a, answers_b, strict=True) if a != b]
        orders = [order for p, a, b in pairs for order in ((p, a, b), (p, b, a))]
        self._ask_questions([self._pair(*order, nth) for order in orders for nth in range(times)], at_once, progress)

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
        asked = [
            _Question(p.id, safety_question(p, answer, DECIDE, safe_first=safe_first))
            for p, answer in zip(prompts, answers, strict=True)
            for safe_first in (True, False)
        ]
        self._ask_questions(asked)
        verdicts = [self._ask(question) for question in asked]
        return [(a + 1 - b) / 2 for a, b in zip(verdicts[0::2], verdicts[1::2], strict=True)]

    def _pair(self, prompt: Prompt, first: str, second: str, nth: int = 0) -> _Question:
        end = THINK_THEN_DECIDE if self.reasoning else DECIDE_OR_TIE
        return _Question(prompt.id, pair_question(prompt, first, second, end), nth)

    def _ask(self, question: _Question) -> float:
        """The verdict, asked for only once."""
        asked = (question.prompt, hashlib.sha256(question.text.encode()).hexdigest()[:16], question.nth)
        if asked not in self._known:
            messages = [{"role": "user", "content": question.text}]
            body = {"model": self.name, "temperature": self.temperature, "messages": messages}
            try:
                verdict = self._verdict(self._send(f"{self.url}/chat/completions", body))
            except BadInput as error:
                if self._known:  # it worked before: nothing that is kept may be thrown away as bad input
                    raise AyniError(str(error)) from None
                raise
            with self._lock:
                self._known[asked] = verdict
                if self.memory is not None:
                    line = dict(zip(("prompt", "asked", "nth"), asked, strict=True)) | {"verdict": verdict}
                    with open(self.memory, "a", encoding="utf-8") as file:
                        file.write(json_line(line))
        return self._known[asked]

    def _ask_questions(
        self,
        questions: Sequence[_Question],
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
