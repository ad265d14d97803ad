"""Numbers out of other people's settings: whole or real, finite, or one line that names the field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ayni.errors import BadInput

_LARGEST = 2**53  # beyond it a float no longer holds every whole number; no size and no scale of a model is near it


def shown(value: Any) -> str:
    """A value as JSON, as much of it as a line has room for."""
    try:
        text = json.dumps(value)
    except RecursionError:
        return "…"
    return text if len(text) <= 60 else f"{text[:60]}…"


def whole(config: dict[str, Any], key: str, path: Path, default: int | None = None) -> int:
    """BadInput for what is missing without a default, and for all but whole numbers."""
    value = _given(config, key, path, default)
    if type(value) is not int or abs(value) > _LARGEST:
        raise BadInput(f"{shown(value)} is not a whole number", path=path, field=key)
    return value


def positive(config: dict[str, Any], key: str, path: Path, default: float | None = None) -> float:
    """BadInput for what is missing without a default, and for all but finite numbers over 0."""
    value = _given(config, key, path, default)
    if type(value) not in (int, float) or not 0 < value <= _LARGEST:
        raise BadInput(f"{shown(value)} is not a positive number", path=path, field=key)
    return float(value)


def _given(config: dict[str, Any], key: str, path: Path, default: float | None) -> Any:
    value = default if config.get(key) is None else config[key]
    if value is None:
        raise BadInput("missing", path=path, field=key)
    return value
