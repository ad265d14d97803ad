"""A user's own reward: a Python function or an HTTP endpoint that scores answers, for `reject`, `chat` and `score`.

    def reward(prompts, answers):   # prompts: a list of [{"role", "content"}, …] each; answers: as many texts
        return [float(len(answer)) for answer in answers]

Scores are raw: any finite numbers, higher is better. A wrong answer is an error, never a score.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ayni.errors import AyniError, BadInput
from ayni.limits import absent
from ayni.model.placement import Placement
from ayni.records import Dialog, Finished, Message, Prompt, Sample, message_dicts
from ayni.reward.model import Reward, load_reward
from ayni.reward.post import Endpoint, check_address, parsed, shown
from ayni.text.tokenizer import Tokenizer

Messages = list[dict[str, str]]
Function = Callable[[list[Messages], list[str]], Any]
KEY = "AYNI_REWARD_KEY"
DEFAULT = "reward"  # the function that a file is asked for, unless another is named
PER_REQUEST = 64  # answers
_WEB = ("http://", "https://")
_FILE = re.compile(r"(.+\.py)(?::([^\W\d]\w*))?")
_MODULE = re.compile(r"python:([^\W\d][\w.]*):([^\W\d]\w*)")
_FORMS = "write FILE.py:FUNCTION, python:PACKAGE.MODULE:FUNCTION or http://HOST:PORT/PATH"


class FunctionReward:
    """`call(prompts, answers)` as a reward. `name` stands in errors and results.

    Raises BadInput where it does not work at all, AyniError where it stops working: what was drawn until then is kept.
    """

    def __init__(self, name: str, call: Function) -> None:
        self.name, self.call = name, call
        self._worked = False

    def scores(self, dialogs: Sequence[Dialog], finished: Sequence[Finished | None] | None = None) -> Tensor:
        """The raw score of the last answer of every dialogue: (N,). It reads texts, however they `finished`."""
        if not dialogs:
            return torch.empty(0)
        prompts, answers = [message_dicts(d[:-1]) for d in dialogs], [d[-1].content for d in dialogs]
        try:
            found = checked_scores(self.call(prompts, answers), len(answers), self.name)
        except BadInput as error:
            if self._worked:
                raise AyniError(str(error)) from None
            raise
        self._worked = True
        return torch.tensor(found)

    def score_answers(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        """(N,) for N prompts with one answer each."""
        return self.scores([(*p.dialog, Message("assistant", a)) for p, a in zip(prompts, answers, strict=True)])

    def score_samples(self, prompts: Sequence[Prompt], groups: Sequence[Sequence[Sample]], policy: Tokenizer) -> Tensor:
        """(N·n,) in order; the samples' texts are what it reads."""
        pairs = [(p, s.text) for p, group in zip(prompts, groups, strict=True) for s in group]
        return self.score_answers([p for p, _ in pairs], [text for _, text in pairs])

    def try_out(self, prompt: Prompt) -> None:
        """Ask it once, before hours of work depend on it; BadInput where it does not work."""
        self.score_answers([prompt], ["Hello."])


def checked_scores(value: Any, count: int, name: str) -> list[float]:
    """`count` finite numbers out of a list, an array or a tensor; BadInput otherwise."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(value, list | tuple):
        raise BadInput(f"{name} gave {type(value).__name__} instead of a list of scores")
    if len(value) != count:
        raise BadInput(f"{name} gave {len(value)} scores for {count} answers")
    found = []
    for index, score in enumerate(value):
        number = score.item() if hasattr(score, "item") else score
        if not isinstance(number, int | float) or isinstance(number, bool):
            raise BadInput(f"{name}: score {index} is {number!r}, not a number")
        if not abs(number) <= torch.finfo(torch.float32).max:  # NaN, infinity, or what fp32 makes infinite
            shown = number if isinstance(number, float) else "too large"
            raise BadInput(f"{name}: score {index} is {shown}, not a finite number")
        found.append(float(number))
    return found


# Where the function comes from


def is_function(text: str) -> bool:
    """Whether the text names a function or an endpoint rather than a reward model's directory."""
    return text.startswith((*_WEB, "python:")) or _FILE.fullmatch(text) is not None


def load_function(text: str, *, wait: Callable[[float], None] = time.sleep) -> FunctionReward:
    """`FILE.py:FUNCTION` (or `FILE.py`, for its `reward`), `python:PACKAGE.MODULE:FUNCTION` or an http address.

    Raises BadInput when there is no such thing, or its module cannot be imported.
    """
    if text.startswith(_WEB):
        check_address(text, "the reward", "reward_function")
        endpoint = Endpoint(f"the reward at {shown(text)}", KEY, wait=wait)
        return FunctionReward(shown(text), lambda prompts, answers: _replied_scores(endpoint, text, prompts, answers))
    if match := _MODULE.fullmatch(text):
        return FunctionReward(text, _guarded(_function(_imported(match[1]), match[2], text), text))
    if match := _FILE.fullmatch(text):
        name = match[2] or DEFAULT
        return FunctionReward(text, _guarded(_function(_module_of(Path(match[1])), name, text), text))
    raise BadInput(f"{text!r} names no reward function", field="reward_function", fix=_FORMS)


def source_of(text: str) -> Path | None:
    """The file whose content decides what the function computes; None of an endpoint, which nobody can hash."""
    if match := _FILE.fullmatch(text):
        return Path(match[1])
    if match := _MODULE.fullmatch(text):
        with _here_importable():
            try:
                spec = importlib.util.find_spec(match[1])
            except ImportError:
                spec = None
        if spec is None or spec.origin is None or not Path(spec.origin).is_file():
            raise BadInput(f"there is no Python module {match[1]}", field="reward_function", fix=_FORMS)
        return Path(spec.origin)
    if text.startswith(_WEB):
        return None
    raise BadInput(f"{text!r} names no reward function", field="reward_function", fix=_FORMS)


def load_choice(path: Path | None, function: str | None, placement: Placement = Placement()) -> Reward:
    """Who chooses: a reward model's directory, a Python file (`function` names one of its functions), or without a
    path what `function` says.

    Raises BadInput for neither, for both, and for what cannot be loaded.
    """
    if path is None:
        if function is None:
            raise BadInput("give a reward model, or a reward_function", field="reward")
        return load_function(function)
    if path.suffix == ".py":
        return load_function(f"{path}:{function or DEFAULT}")
    if function is not None:
        raise BadInput("give either a reward model or a reward_function", field="reward_function")
    return load_reward(path, placement)


def outside_sources(path: Path | None, function: str | None) -> list[Path]:
    """What a stage's identity must hash beside its inputs: the module of a function that is no input's."""
    source = None if path is not None or function is None else source_of(function)
    return [] if source is None else [source]


def _function(module: ModuleType, name: str, text: str) -> Function:
    function = getattr(module, name, None)
    if not callable(function):
        has = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise BadInput(f"{text}: there is no function {name}", fix=f"it has {', '.join(has[:8]) or 'none'}")
    return function


@contextlib.contextmanager
def _here_importable() -> Iterator[None]:
    """`python -m` finds modules where you are; the console script does not."""
    here = os.getcwd()
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        yield
    finally:
        if added:
            sys.path.remove(here)


def _imported(name: str) -> ModuleType:
    with _here_importable(), _as_bad_input(f"python:{name}", None):
        return importlib.import_module(name)


def _module_of(path: Path) -> ModuleType:
    if not path.is_file():
        raise absent(path, "file")
    path = path.absolute()  # as tracebacks name it
    name = f"ayni_reward_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BadInput("is no Python file", path=path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles of its own look there
    with _as_bad_input(str(path), path):
        spec.loader.exec_module(module)
    return module


def _guarded(function: Function, text: str) -> Function:
    def call(prompts: list[Messages], answers: list[str]) -> Any:
        code = getattr(function, "__code__", None)
        with _as_bad_input(text, None if code is None else Path(code.co_filename)):
            return function(prompts, answers)

    return call


@contextlib.contextmanager
def _as_bad_input(name: str, path: Path | None) -> Iterator[None]:
    """A failure of somebody else's code as one line that names the line at fault; anything may come out of it."""
    try:
        yield
    except AyniError:
        raise
    except SyntaxError as error:
        raise BadInput(f"not Python: {error.msg}", path=error.filename or name, line=error.lineno) from None
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if path is not None and f.filename == str(path)]
        what = f"{type(error).__name__}: {error}"
        if frames:
            raise BadInput(what, path=path, line=frames[-1].lineno, field=frames[-1].name) from None
        raise BadInput(f"{name} raised {what}") from None


def _replied_scores(endpoint: Endpoint, url: str, prompts: list[Messages], answers: list[str]) -> list[Any]:
    """{"items": [{"messages", "response"}]} → {"scores": […]}, some answers at a time."""
    found: list[Any] = []
    for start in range(0, len(answers), PER_REQUEST):
        part = slice(start, start + PER_REQUEST)
        pairs = zip(prompts[part], answers[part], strict=True)
        items = [{"messages": messages, "response": answer} for messages, answer in pairs]
        data = endpoint.send(url, {"items": items})
        try:
            scores = parsed(data)["scores"]
        except (ValueError, LookupError, TypeError):
            reply = data[:80].decode("utf-8", "replace")
            what = f"{endpoint.name} replied {reply!r}"
            raise BadInput(what, fix='it must reply {"scores": [one number an answer]}') from None
        found += checked_scores(scores, len(items), endpoint.name)
    return found
