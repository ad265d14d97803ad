"""One verb per stage, made from the stage's own face: its inputs are options, its settings come by --config and --set.

A path that is a finished stage's directory stands for what that stage usually leaves for this input, as in a recipe.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic.fields import FieldInfo

from ayni.cli import say
from ayni.config import Config
from ayni.errors import BadInput
from ayni.runs.faces import load_stage, summary_of
from ayni.runs.status import is_run, located, output_of
from ayni.stage import Input, either

if TYPE_CHECKING:
    from ayni.reward.function import FunctionReward
    from ayni.reward.model import RewardModel

Options = dict[str, tuple[Any, Any, str, str]]  # parameter: (type, default or ..., option, help)
_PATHS = (str, str | None, Path, Path | None, list[Path])
COMMON: Options = {
    "out": (Path, ..., "--out", "Directory for the result; the same command continues or reuses it."),
    "config": (Path | None, None, "--config", "YAML file of settings."),
    "set_": (list[str], [], "--set", "One setting, KEY=VALUE; may be repeated."),
    "seed": (int, 0, "--seed", "Seed of every random number."),
    "fresh": (bool, False, "--fresh", "Start over, even if it is finished."),
    "dry_run": (bool, False, "--dry-run", "Say what would happen, write nothing."),
    "json_": (bool, False, "--json", "One JSON object on stdout."),
    "quiet": (bool, False, "--quiet", "No progress."),
}


def verb_of(kind: str) -> Callable[..., dict[str, Any]]:
    """The typer command of a stage: its signature holds an option per input."""
    stage = load_stage(kind)
    parameters: Options = {}
    for spec in stage.inputs.values():
        worded = spec.setting is not None or spec.without is not None  # more than paths can be said
        several: Any = list[str] if worded else list[Path]
        type_: Any = several if spec.many else (str | None if spec.optional else str)
        default: Any = ([] if spec.optional else ...) if spec.many else (None if spec.optional else ...)
        repeated = " May be repeated." if spec.many else ""
        text = f"{_forms(spec)}.{repeated}"
        parameters[_identifier(spec.name)] = (type_, default, _option(spec), text[0].upper() + text[1:])

    def verb(**given: Any) -> dict[str, Any]:
        return run_stage(kind, given)

    settings = "\n".join(_settings(stage.config.model_fields))
    verb.__doc__ = f"{summary_of(kind)}\n\nSettings (--set or --config), with their defaults:\n\n\b\n{settings}"
    return with_options(verb, parameters | COMMON)


def _settings(fields: Mapping[str, FieldInfo], prefix: str = "") -> Iterator[str]:
    """`name = default  what it is`, those of nested settings with a dot."""
    for name, info in fields.items():
        default = info.get_default(call_default_factory=True)
        if isinstance(default, Config):
            nested = {key: copy(field) for key, field in type(default).model_fields.items()}
            for key, field in nested.items():
                field.default = getattr(default, key)
            yield from _settings(nested, f"{prefix}{name}.")
        else:
            shown = "" if info.is_required() else f" = {'null' if default is None else default}"
            yield f"  {prefix}{name}{shown}{'  ' + info.description if info.description else ''}"


def _forms(spec: Input) -> str:
    """What may be written for this input."""
    paths = [kind for kind in spec.accepts if kind != "function"]
    forms = [f"{either(paths)}: a path, or the stage that left it ({spec.default})"]
    if "function" in spec.accepts:
        forms.append("FILE.py:FUNCTION, or python:MODULE:FUNCTION")
    if spec.setting is not None:
        forms.append("an http address")
    if spec.without is not None:
        forms.append(spec.without)
    return "; ".join(forms)


def _option(spec: Input) -> str:
    return f"--{spec.name.replace('_', '-')}"


def _identifier(name: str) -> str:
    return name.replace("-", "_")


def with_options(function: Callable[..., Any], parameters: Options) -> Callable[..., Any]:
    """Give a `**given` function the signature that typer reads."""
    annotations: dict[str, Any] = {}
    for name, (type_, _, option, text) in parameters.items():
        metavar = "PATH" if type_ in _PATHS else None
        annotations[name] = Annotated[type_, typer.Option(option, help=text, metavar=metavar)]
    function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if default is ... else default,
                annotation=annotations[name],
            )
            for name, (_, default, _, _) in parameters.items()
        ]
    )
    function.__annotations__ = dict(annotations)
    return function


def language_model_of(path: Path) -> Path:
    """A language model's directory: itself, what its stage left, or of a whole run the model it is about."""
    if not is_run(path):
        return checked(output_of(path, "model"))
    from ayni.runs.reading import read_run

    stage = read_run(path).chat_stage()
    if stage is None:
        raise BadInput("no stage of this run has made a model that talks", path=path, fix="run it further")
    say(f"{path}: the model of the stage {stage.name}")
    return checked(stage.directory / "model")


def checked(model: Path) -> Path:
    """A model's directory, of plausible sizes, and as its stage left it where it lies in a finished one."""
    from ayni.model_directory import check_sizes
    from ayni.runs.sealing import sealed_hash

    check_sizes(model)
    sealed_hash(model)
    return model


def reward_at(source: str | Path) -> RewardModel | FunctionReward:
    """A reward model's directory or the stage that made it, or a function or endpoint of the user's."""
    from ayni.reward.function import is_function, load_function
    from ayni.reward.model import load_reward

    text = str(source)
    return load_function(text) if is_function(text) else load_reward(checked(output_of(Path(source), "model")))


def tokenizer_path(path: Path) -> Path:
    """Where the tokenizer lies: a tokenizer, a model's directory, or the stage or run that made it."""
    if is_run(path):
        return language_model_of(path)
    return output_of(output_of(path, "tokenizer"), "model")


def run_stage(kind: str, given: dict[str, Any]) -> dict[str, Any]:
    """The body of a stage's verb; {stage, directory, hash, state, seconds, results}."""
    from ayni.files import read_json
    from ayni.runs.execution import execute_job, job_of, reusable, warn_of_other_source
    from ayni.runs.sealing import read_seal
    from ayni.runs.settings import read_settings

    stage = load_stage(kind)
    settings = read_settings(given["config"], given["set_"])
    inputs: dict[str, Path | list[Path]] = {}
    instead: dict[str, str | bool] = {}
    for spec in stage.inputs.values():
        value = given[_identifier(spec.name)]
        said = value if isinstance(value, list) else [] if value is None else [value]
        paths: list[Path] = []
        for each in said:
            path, name = (each, None) if isinstance(each, Path) else _path_or_name(kind, spec, each)
            paths += [output_of(path, spec.default)] if path is not None else []
            if each == spec.without and spec.without in stage.config.model_fields:
                instead[spec.without] = True
            if name is not None and spec.setting is not None:
                if spec.setting in instead:
                    raise BadInput(f"{spec.setting} is given twice", field=_option(spec))
                instead[spec.setting] = name
        if paths:
            inputs[spec.name] = paths if spec.many else paths[0]
    config = settings.config(stage.config, settings.value | instead)
    job = job_of(stage, config, inputs, given["seed"])
    directory: Path = given["out"]
    state: str
    if given["dry_run"]:
        state = "reused" if not given["fresh"] and reusable(job, directory) else "pending"
    else:
        state = execute_job(job, directory, name=kind, fresh=given["fresh"], quiet=given["quiet"])
    if state == "reused" and not given["quiet"]:
        warn_of_other_source([directory])
    results = directory / "results.json"
    summary = {
        "stage": kind,
        "directory": str(directory.absolute()),
        "hash": job.identity,
        "state": state,
        "seconds": (read_seal(directory) or {}).get("seconds") if state != "pending" else None,
        "results": read_json(results)["results"] if state != "pending" and results.is_file() else [],
    }
    if not given["json_"]:
        print(f"{kind}: {state} {directory}")
    return summary


def _path_or_name(kind: str, spec: Input, text: str) -> tuple[Path | None, str | None]:
    """What an option says: the path to read, and what its `setting` is to name; BadInput where it can be neither."""
    if text == spec.without:
        return None, None
    function = "function" in spec.accepts
    file, colon, name = text.rpartition(":")
    in_file = bool(colon) and file.endswith(".py")
    if "://" in text or text.startswith("python:") or in_file:
        if spec.setting is None or not (function or "://" in text):
            fix = f"give {_forms(spec)}"
            raise BadInput(f"{kind} takes no function and no address here", field=_option(spec), fix=fix)
        return (Path(file), name) if in_file else (None, text)
    path = located(Path(text))
    if not path.exists():
        raise BadInput(f"{text}: no such file or directory", field=_option(spec), fix=f"give {_forms(spec)}")
    return path, None
