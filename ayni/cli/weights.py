"""`ayni import` and `ayni export`: other people's model files, both ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ayni.cli.stages import language_model_of
from ayni.conversion import export_model, import_model
from ayni.runs.lineage import write_lineage


def import_weights(source: Path, out: Path, tokenizer: Path | None, as_json: bool) -> dict[str, Any]:
    """{source, model}."""
    import_model(source, out, tokenizer)
    return _reported({"source": str(source), "model": str(out)}, out, as_json)


def export_weights(model: Path, out: Path, format: str, as_json: bool) -> dict[str, Any]:
    """{model, output, format}."""
    source = language_model_of(model)
    export_model(source, out, format)
    write_lineage(source, out)
    return _reported({"model": str(model), "output": str(out), "format": format}, out, as_json)


def _reported(value: dict[str, Any], out: Path, as_json: bool) -> dict[str, Any]:
    if not as_json:
        print(out)
    return value
