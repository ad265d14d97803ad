"""Methods beside each other: each with the same number of tries, the best of which by validation is judged.

    methods:
      tries: 3
      each:                                   # of every method: the choice among its tries, and who judges that
        "{method}": {kind: choose, models: ["{method}-{1..t}"], start: sft, reward: judge, prompts: [...]}
        "{method}-judged": {kind: evaluate, model: "{method}", against: sft, prompts: [...], final: true}
      of:
        dpo:
          "dpo-{t}": {kind: dpo, model: sft, data: [comparisons], beta: {tries: [0.05, 0.1, 0.3]}}
        rejection:
          rejection-samples: {kind: reject, ...}
          "rejection-{t}": {kind: sft, data: [rejection-samples], optimiser: {lr: {tries: [1e-4, 3e-4, 1e-3]}}, ...}

Before a recipe is checked these become ordinary stages: a stage with `{t}` in its name is written once a try, and
`{tries: [...]}` is its value in each; of more values than tries the first are taken. An item of a list with `{1..t}`
becomes one for every try. A method's stages bear its name, so that what it cost can be counted. A stage under `stages`
with the name of one changes the keys it names.
"""

from __future__ import annotations

import re
from typing import Any

from ayni.config import Config, Field
from ayni.runs.settings import Key, Merges, Settings
from ayni.runs.templates import Filling, Writer

MOST_TRIES = 100
_METHOD, _TRY, _SPAN, _TRIES = "{method}", "{t}", "{1..t}", "tries"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class Methods(Config):
    """`of`: every method's stages by name, as under `stages`; `each`: stages that all methods have."""

    tries: int = Field(ge=1, le=MOST_TRIES)
    each: dict[str, dict[str, Any]]
    of: dict[str, dict[str, dict[str, Any]]]


def with_methods(settings: Settings, merges: Merges) -> Settings:
    """The settings of a recipe with its methods written out; BadInput at the line of what cannot be."""
    if "methods" not in settings.value:
        return settings
    given = settings.value["methods"]
    if not isinstance(given, dict):
        raise settings.wrong(("methods",), "expected `tries`, `each` and `of`")
    methods = settings.config(Methods, given, ("methods",))
    writer = Writer(settings)
    for name, stages in methods.of.items():
        at: Key = ("methods", "of", name)
        if not _NAME.fullmatch(name):
            raise settings.wrong(at, f"{name!r} cannot name a stage")
        tried = [template for template in stages if _TRY in template]
        if not tried:
            raise settings.wrong(at, "the method has no tries", f"name the stage that is tried {name}-{_TRY}")
        for template, body in stages.items():
            if not template.startswith(f"{name}-"):
                fix = f"call it {name}-{template}"
                raise settings.wrong((*at, template), f"a method's stages bear its name, {name}", fix)
            for t in range(1, methods.tries + 1) if template in tried else (None,):
                filling = _Try(settings, name, methods.tries, t)
                writer.write(filling.text(template, (*at, template)), body, (*at, template), filling)
        for template, body in methods.each.items():
            here: Key = ("methods", "each", template)
            if _METHOD not in template:
                raise settings.wrong(here, "the name is the same for every method", f"put {_METHOD} into it")
            filling = _Try(settings, name, methods.tries, None)
            writer.write(filling.text(template, here), body, here, filling)
    templates = [template for stages in methods.of.values() for template in stages]
    possible = {template.replace(_TRY, str(t)) for template in templates for t in range(1, MOST_TRIES + 1)}
    return writer.in_place_of("methods", possible, merges)


class _Try(Filling):
    """Try t of a method; outside of any try, t is None."""

    def __init__(self, settings: Settings, method: str, tries: int, t: int | None) -> None:
        self.settings, self.method, self.tries, self.t = settings, method, tries, t

    def text(self, text: str, at: Key) -> str:
        if _SPAN in text:
            raise self.settings.wrong(at, f"{text}: only an item of a list is written for several tries")
        if _TRY in text and self.t is None:
            fix = f"put {_TRY} into the stage's name"
            raise self.settings.wrong(at, f"{text}: the stage is the same in every try", fix)
        return text.replace(_METHOD, self.method).replace(_TRY, str(self.t))

    def items(self, item: Any, at: Key) -> list[Any]:
        """One item for each try."""
        if not isinstance(item, str) or _SPAN not in item:
            return [item]
        return [item.replace(_SPAN, str(t)) for t in range(1, self.tries + 1)]

    def instead(self, value: dict[str, Any], at: Key) -> tuple[Any, Key]:
        if value.keys() != {_TRIES}:
            return value, at
        given, here = value[_TRIES], (*at, _TRIES)
        if not isinstance(given, list) or len(given) < self.tries:
            raise self.settings.wrong(here, f"expected a value for each of {self.tries} tries, found {given!r}")
        if self.t is None:
            fix = f"put {_TRY} into the stage's name"
            raise self.settings.wrong(here, "the stage is the same in every try", fix)
        return given[self.t - 1], (*here, self.t - 1)
