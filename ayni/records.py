"""The records that stages exchange, one JSON line each, and their single strict way in from JSON.

Text becomes records here and nowhere else. Unknown keys are errors; records are frozen and hold plain values.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Literal, TypeVar, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError

from ayni.errors import BadInput

Role = Literal["system", "user", "assistant"]
Task = Literal["helpfulness", "safety"]
Rating = Literal["significantly_better", "better", "slightly_better", "negligibly_better_or_unsure"]
Safety = Literal["chosen_safe", "both_safe", "both_unsafe"]
RATINGS: tuple[Rating, ...] = (
    "significantly_better",
    "better",
    "slightly_better",
    "negligibly_better_or_unsure",
)
_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, slots=True)
class Message:
    __pydantic_config__ = _STRICT
    role: Role
    content: str


Dialog = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A dialogue whose last message is the user's; `task` says which guidelines an answer is judged by."""

    __pydantic_config__ = _STRICT
    id: str
    dialog: Dialog
    task: Task = "helpfulness"
    category: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A whole dialogue to imitate; `train` says which assistant turns are supervised."""

    __pydantic_config__ = _STRICT
    dialog: Dialog
    train: Literal["all", "last"] = "all"
    source: str = ""


def comparable(a: str, b: str) -> bool:
    """Whether two answers can be compared: neither is empty, and they differ in more than the white space around."""
    return bool(a.strip()) and bool(b.strip()) and a.strip() != b.strip()


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two answers to one prompt, and how they compare (paper §3.2.1).

    `margin` (≥ 0) overrides what the rating implies. Chosen unsafe with rejected safe cannot be said.
    """

    __pydantic_config__ = _STRICT
    prompt: Prompt
    chosen: str
    rejected: str
    task: Task = "helpfulness"
    rating: Rating | None = None
    margin: float | None = None
    safety: Safety | None = None
    annotator: str = ""
    batch: str = ""
    model_chosen: str = ""
    model_rejected: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        if self.margin is not None and not 0 <= self.margin < float("inf"):
            raise ValueError(f"margin: {self.margin} is not a number ≥ 0")


@dataclass(frozen=True, slots=True)
class Judgement:
    """One answer's scalar rating, or a label such as thumbs up or down."""

    __pydantic_config__ = _STRICT
    prompt: Prompt
    response: str
    score: float | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One sampled answer: `tokens` (n,) after the prompt, EOS included when `finished` is "stop".

    `prompt_tokens` (p,) are the prompt as the model read it: with `tokens` after them, what a training forward reads.
    `logprobs` (n,) are natural logs after temperature and before top-p; at temperature 0, of temperature 1.
    """

    __pydantic_config__ = _STRICT
    prompt_id: str
    task: Task
    prompt_tokens: tuple[int, ...]
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finished: Literal["stop", "length"]
    model: str = ""
    iteration: int = 0
    temperature: float = 1.0
    seed: int = 0
    scores: dict[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Sequence:
    """Tokens and which of them are supervised: `mask[i]` speaks of `tokens[i]`. Both (n,)."""

    tokens: list[int]
    mask: list[bool]

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.mask):
            raise ValueError(f"{len(self.tokens)} tokens but {len(self.mask)} mask entries")


R = TypeVar("R", Prompt, Demonstration, Comparison, Judgement, Sample)


@cache
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(cast(type, kind))


def from_json(kind: type[R], text: str | bytes, *, path: object = None, line: int | None = None) -> R:
    """One record from one JSON line; raises BadInput with file, line and field."""
    return cast(R, _validated(cast(Hashable, kind), text, path, line))


def groups_from_json(
    kind: type[R], text: str | bytes, *, path: object = None, line: int | None = None
) -> list[list[R]]:
    """A list of lists of records from one JSON line; raises BadInput as `from_json`."""
    return cast(list[list[R]], _validated(list[list[kind]], text, path, line))  # type: ignore[valid-type]


def _validated(kind: Hashable, text: str | bytes, path: object, line: int | None) -> Any:
    try:
        return _adapter(kind).validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or None
        where = None if path is None else str(path)
        what = first["msg"]
        if first["type"] == "value_error":  # ours: "field: what is wrong"
            head, _, what = str(first["ctx"]["error"]).partition(": ")
            field = ".".join(part for part in (field, head) if part)
        raise BadInput(what, path=where, line=line, field=field) from None


def to_dict(record: Any) -> dict[str, Any]:
    """The record as plain values, ready for `json.dumps`; fields at None are left out."""
    return {key: value for key, value in asdict(record).items() if value is not None}


def message_dicts(dialog: Dialog) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in dialog]
