"""The records that stages exchange, one JSON line each, and their single strict way in from JSON.

Text becomes records here and nowhere else. Unknown keys are errors; records are frozen and hold plain values.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import AllowInfNan, ConfigDict, Strict, StringConstraints, TypeAdapter, ValidationError

from ayni.errors import BadInput
from ayni.files import parse_json

MessageRole = Literal["system", "user", "assistant"]
Task = Literal["helpfulness", "safety"]
Rating = Literal["significantly_better", "better", "slightly_better", "negligibly_better_or_unsure"]
Safety = Literal["chosen_safe", "both_safe", "both_unsafe"]
Finished = Literal["stop", "length"]  # an answer ended by itself (EOS), or was cut off at a limit and stays so
RATINGS: tuple[Rating, ...] = (
    "significantly_better",
    "better",
    "slightly_better",
    "negligibly_better_or_unsure",
)
# Strict in every plain value, so that tuples and records may be built out of JSON's lists and objects. (The constraint
# makes pydantic look into the text: half a surrogate pair is refused.)
Text = Annotated[str, StringConstraints(strict=True, min_length=0)]
Number = Annotated[float, Strict(), AllowInfNan(False)]
Count = Annotated[int, Strict()]
_CLOSED = ConfigDict(extra="forbid")
_WORD = re.compile(r"\w+")


# By how much the chosen answer's score should lead, by its rating (paper Table 27).
MARGINS: dict[str, dict[Rating, float]] = {
    "none": dict.fromkeys(RATINGS, 0.0),
    "small": dict(zip(RATINGS, (1.0, 2 / 3, 1 / 3, 0.0), strict=True)),
    "large": dict(zip(RATINGS, (3.0, 2.0, 1.0, 0.0), strict=True)),
}


@dataclass(frozen=True, slots=True)
class Message:
    __pydantic_config__ = _CLOSED
    role: MessageRole
    content: Text


Dialog = tuple[Message, ...]


def root_of(dialog: Dialog) -> str:
    """What the conversation began with: its first user message, less case, punctuation and white space.

    All turns of a conversation share it. Splits go by it, so that no conversation falls on both sides.
    """
    first = next((message.content for message in dialog if message.role == "user"), "")
    return " ".join(_WORD.findall(first.lower())) or first.strip()


def turns_of(dialog: Dialog) -> int:
    """Messages of the user's."""
    return sum(message.role == "user" for message in dialog)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A dialogue whose last message is the user's; `task` says which guidelines an answer is judged by.

    Prompts of one `cluster` stand or fall together (one topic, one subject); empty: the prompt is one by itself.
    """

    __pydantic_config__ = _CLOSED
    id: Text
    dialog: Dialog
    task: Task = "helpfulness"
    category: Text = ""
    source: Text = ""
    cluster: Text = ""


def cluster_of(prompt: Prompt) -> str:
    """What the prompt stands or falls with: its cluster, else it alone."""
    return prompt.cluster or prompt.id


def under(prompt: Prompt, system: str) -> Prompt:
    """The prompt with this as its system message; one of its own stands after it."""
    first, rest = prompt.dialog[0], prompt.dialog[1:]
    own = first.role == "system"
    message = Message("system", f"{system}\n\n{first.content}" if own else system)
    return replace(prompt, dialog=(message, *(rest if own else prompt.dialog)))


@dataclass(frozen=True, slots=True)
class Demonstration:
    """A whole dialogue to imitate; `train` says which assistant turns are supervised.

    `finished` is the last answer's; None, here and in the records below: nobody has said, taken for "stop".
    """

    __pydantic_config__ = _CLOSED
    dialog: Dialog
    train: Literal["all", "last"] = "all"
    source: Text = ""
    finished: Finished | None = None


@dataclass(frozen=True, slots=True)
class Constraint:
    """An instruction that is to hold for a whole conversation (paper §3.3): `long` in full, `short` in a few words.

    Empty `short`: there is none. Of one `kind` a conversation has at most one.
    """

    __pydantic_config__ = _CLOSED
    id: Text
    long: Text
    short: Text = ""
    kind: Text = ""
    source: Text = ""


@dataclass(frozen=True, slots=True)
class Question:
    """A question with answers known to be `correct`, the best one first, and `incorrect` ones: TruthfulQA's kind."""

    __pydantic_config__ = _CLOSED
    id: Text
    question: Text
    correct: tuple[Text, ...]
    incorrect: tuple[Text, ...]
    category: Text = ""
    source: Text = ""


def instruction(constraints: Iterable[Constraint], *, short: bool) -> str:
    """The constraints as one text: in full, or in the short form of those that have one."""
    return " ".join((short and constraint.short) or constraint.long for constraint in constraints)


def attached(instruction: str, message: Message) -> Message:
    """The message with the instruction before it."""
    return Message(message.role, f"{instruction} {message.content}")


@dataclass(frozen=True, slots=True)
class Principle:
    """What answers are revised by (Bai et al. 2022, §3.1): how a model is asked what is wrong with its answer, and then
    to revise it."""

    __pydantic_config__ = _CLOSED
    id: Text
    critique: Text
    revision: Text
    source: Text = ""


def comparable(a: str, b: str) -> bool:
    """Whether two answers can be compared: neither is empty, and they differ in more than the white space around."""
    return bool(a.strip()) and bool(b.strip()) and a.strip() != b.strip()


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two answers to one prompt, and how they compare (paper §3.2.1).

    `margin` (≥ 0) overrides what the rating implies. Chosen unsafe with rejected safe cannot be said. `probability`
    (½ to 1) is how sure the judge is that the chosen one is better: a soft label.
    """

    __pydantic_config__ = _CLOSED
    prompt: Prompt
    chosen: Text
    rejected: Text
    task: Task = "helpfulness"
    rating: Rating | None = None
    margin: Number | None = None
    safety: Safety | None = None
    annotator: Text = ""
    batch: Text = ""
    model_chosen: Text = ""
    model_rejected: Text = ""
    source: Text = ""
    finished_chosen: Finished | None = None
    finished_rejected: Finished | None = None
    probability: Number | None = None

    def __post_init__(self) -> None:
        if self.margin is not None and not 0 <= self.margin < float("inf"):
            raise ValueError(f"margin: {self.margin} is not a number ≥ 0")
        if self.probability is not None and not 0.5 <= self.probability <= 1:
            what = f"probability: {self.probability} is not from 0.5 to 1"
            raise ValueError(f"{what}; below 0.5 the other answer is the chosen one")


def margin_of(comparison: Comparison, table: str | Mapping[Rating, float]) -> float:
    """By how much the chosen answer should lead: its own margin, else what its rating says in this table, else 0."""
    if comparison.margin is not None:
        return comparison.margin
    by_rating = MARGINS[table] if isinstance(table, str) else table
    return 0.0 if comparison.rating is None else by_rating[comparison.rating]


# Of the chosen and of the rejected answer.
_SAFE: dict[Safety, tuple[bool, bool]] = {
    "chosen_safe": (True, False),
    "both_safe": (True, True),
    "both_unsafe": (False, False),
}


def safe_answers(comparison: Comparison) -> tuple[bool | None, bool | None]:
    """Whether the chosen and the rejected answer are safe; None where nobody has said."""
    return (None, None) if comparison.safety is None else _SAFE[comparison.safety]


@dataclass(frozen=True, slots=True)
class Judgement:
    """One answer's scalar rating, or a label such as thumbs up or down."""

    __pydantic_config__ = _CLOSED
    prompt: Prompt
    response: Text
    score: Number | None = None
    label: Text | None = None
    finished: Finished | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One sampled answer: `tokens` (n,) after the prompt, EOS included when `finished` is "stop".

    `prompt_tokens` (p,) are the prompt as the model read it: with `tokens` after them, what a training forward reads.
    `logprobs` (n,) are natural logs after temperature and before top-p; at temperature 0, of temperature 1.
    """

    __pydantic_config__ = _CLOSED
    prompt_id: Text
    task: Task
    prompt_tokens: tuple[Count, ...]
    tokens: tuple[Count, ...]
    logprobs: tuple[Number, ...]
    text: Text
    finished: Finished
    model: Text = ""
    iteration: Count = 0
    temperature: Number = 1.0
    seed: Count = 0
    scores: dict[Text, Number] | None = None

    @property
    def fit(self) -> bool:
        """Whether it can be imitated: it says something, and was not cut off."""
        return self.finished == "stop" and bool(self.text.strip())


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """Tokens and which of them are supervised: `mask[i]` speaks of `tokens[i]`. Both (n,)."""

    tokens: list[int]
    mask: list[bool]

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.mask):
            raise ValueError(f"{len(self.tokens)} tokens but {len(self.mask)} mask entries")


R = TypeVar("R")


@cache
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(cast(type, kind))


def from_dict(kind: type[R], value: Any, *, path: object = None, line: int | None = None) -> R:
    """One record from JSON that is parsed already; raises BadInput with file, line and field."""
    try:
        return _adapter(cast(Hashable, kind)).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or None
        what = first["msg"]
        if first["type"] == "value_error":  # ours: "field: what is wrong"
            head, _, what = str(first["ctx"]["error"]).partition(": ")
            field = ".".join(part for part in (field, head) if part)
        elif first["type"] == "string_unicode":
            what = "half a surrogate pair: not Unicode text"
        where = None if path is None else str(path)
        raise BadInput(_IN_JSON.get(first["type"], what), path=where, line=line, field=field) from None


_IN_JSON = {"tuple_type": "Input should be a valid array", "dataclass_type": "Input should be an object"}


def from_json(kind: type[R], text: str | bytes, *, path: object = None, line: int | None = None) -> R:
    """The same of one JSON line."""
    text = text.decode() if isinstance(text, bytes) else text
    return from_dict(kind, parse_json(text, path=path, line=line), path=path, line=line)


def to_dict(record: Any) -> dict[str, Any]:
    """The record as plain values, ready for `json.dumps`; fields at None are left out."""
    return {key: value for key, value in asdict(record).items() if value is not None}


def message_dicts(dialog: Dialog) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in dialog]
