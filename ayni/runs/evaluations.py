"""What an evaluation may open, and the record that it did.

A stage's face says which of its outputs are sealed: the village's test prompts. Only an evaluation marked `final` opens
them; everything that chooses (settings, a step to stop at, a model among several) goes by the validation split.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from ayni.config import Config
from ayni.errors import BadInput
from ayni.files import sha256_of, write_json
from ayni.runs.faces import Stage, face_of
from ayni.runs.kinds import Mismatch
from ayni.runs.leaks import ASKED, asked_in, copied_prompts, gone, models_in
from ayni.runs.lineage import makers
from ayni.runs.sealing import read_seal
from ayni.stage import Face

OPENED = "opened.json"


def is_final(config: Config) -> bool:
    return bool(getattr(config, "final", False))


def sealed_from(stage: str, path: Path, face: Face, config: Config) -> Mismatch | None:
    """Why a stage of this config may not read the output at `path` of a stage with this face; None where it may."""
    if path.as_posix() not in face.sealed or is_final(config):
        return None
    names = (path.as_posix().replace("test", other) for other in ("validation", "train"))
    instead = next((name for name in names if face.left_at(PurePath(name))), "what it has not sealed")
    fix = f"give {stage}/{instead}" + (", or set `final: true`" if hasattr(config, "final") else "")
    return Mismatch(f"only a final evaluation opens {stage}/{path}", fix)


def check_seal(path: Path, config: Config) -> None:
    """The same of a path of its own: BadInput for what a finished stage left sealed."""
    real = path.resolve()
    for directory in real.parents:
        if (seal := read_seal(directory)) is None:
            continue
        face = face_of(str(seal["kind"]))
        if face is None:
            continue
        found = sealed_from(directory.name, real.relative_to(directory), face.under(seal["config"]), config)
        if found:
            raise BadInput(found.what, path=path, fix=found.fix)


def check_prompts(stage: Stage, config: Config, inputs: Mapping[str, Any], *, quiet: bool) -> None:
    """A final evaluation must not ask what its models were trained on; any other says that it does, and goes on.

    The stage itself does not know what made its models: the inputs.json beside them do.
    """
    if stage.face.family != "evaluates" or not any(inputs.get(asked) for asked in ASKED):
        return
    trained_by = makers(models_in(stage.kind, inputs))
    for path in [] if quiet else gone(trained_by):
        print(f"leak: {path}: is not there any more, so nobody knows whether it holds these prompts", file=sys.stderr)
    for leak in copied_prompts(asked_in(inputs), trained_by) if trained_by else ():
        what = f"{leak.stage} trained on {leak.count} of the prompts to evaluate on, for one: {leak.example}"
        if is_final(config):
            raise BadInput(what, path=leak.file, fix="evaluate on others, or give what was trained on as `seen`")
        if not quiet:
            print(f"leak: {leak.file}: {what}", file=sys.stderr)


def record_opening(
    directory: Path, config: Config, name: str, seed: int, recipe: Path | None, hashes: Mapping[str, list[str]]
) -> None:
    """opened.json of a final evaluation, written before anything is read and never again: what opened the test split.

    `commit` is of the recipe's repository, null where it is in none; `changed`: its files differ from that commit.
    """
    if not is_final(config) or (directory / OPENED).exists():
        return
    commit, changed, recipe_name = None, None, None if recipe is None else recipe.name
    top = None if recipe is None else _git(recipe, "rev-parse", "--show-toplevel")
    if recipe is not None and top is not None:
        commit = _git(recipe, "rev-parse", "HEAD")
        tracked, own = _git(recipe, "status", "--porcelain", "-uno"), _git(recipe, "status", "--porcelain", recipe.name)
        changed = bool(tracked or own)
        recipe_name = recipe.resolve().relative_to(Path(top).resolve()).as_posix()
    opening = {
        "stage": name,
        "recipe": recipe_name,
        "recipe_sha256": None if recipe is None else sha256_of(recipe),
        "commit": commit,
        "changed": changed,
        "seed": seed,
        "prompts": hashes.get("prompts", []) + hashes.get("people", []),
    }
    write_json(directory / OPENED, opening)


def _git(file: Path, *words: str) -> str | None:
    """What git says of the folder of the file; None without git, and where it is in no repository.

    A repository's own settings may name programs that git starts (a monitor, hooks, filters): none of them is.
    """
    off = {"core.fsmonitor": "false", "core.hooksPath": os.devnull, "diff.ignoreSubmodules": "all"}
    filters = _asked(file, off, "config", "--name-only", "--null", "--get-regexp", r"^filter\.") or ""
    off |= {name: "false" if name.endswith(".required") else "" for name in filters.split("\0") if name}
    return _asked(file, off, *words)


def _asked(file: Path, settings: Mapping[str, str], *words: str) -> str | None:
    given = {"GIT_CONFIG_COUNT": str(len(settings)), "GIT_OPTIONAL_LOCKS": "0"}
    for i, (name, value) in enumerate(settings.items()):
        given |= {f"GIT_CONFIG_KEY_{i}": name, f"GIT_CONFIG_VALUE_{i}": value}
    command = ["git", "-C", str(file.resolve().parent), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **given})
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
