"""Which recipe a study ran, whatever its seeds: results of one study are pooled where its stages compute the same."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ayni.runs.pipeline import wanted
from ayni.runs.recipe import Recipe


def fingerprint(recipe: Recipe) -> str:
    """Of the stages it runs: kinds, versions, inputs, settings but for the defaults; not of claims and seeds."""
    stages: dict[str, Any] = {}
    for entry in wanted(recipe, recipe.only):
        settings = entry.config.model_dump(mode="json", exclude_defaults=True)
        inputs = {
            # a file of one's own lies elsewhere on every machine
            name: [each.text if each.stage is not None else each.path.name for each in references]
            for name, references in entry.inputs.items()
        }
        own = {name: value for name, value in settings.items() if name not in entry.stage.face.shared}  # of the world
        kind = [entry.stage.kind, entry.stage.version]
        stages[entry.name] = {"kind": kind, "inputs": inputs, "settings": own}
    text = json.dumps(stages, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
