"""`ayni inspect`: a data file's format, counts and errors, tokens and a critic's values, painted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from ayni.cli.stages import output_of, tokenizer_path
from ayni.text.formats import scan
from ayni.text.inspect import inspect_data, paint, sequences_of
from ayni.text.tokenizer import Tokenizer, load_tokenizer


def inspect(
    data: Path, model: Path | None, critic: Path | None, max_tokens: int | None, show: int, as_json: bool
) -> dict[str, Any]:
    """{path, format, records, turns, errors, tokens, unsupervised, without_eos, truncated}."""
    judge, tokenizer = None, None
    if critic is not None:
        from ayni.model_directory import load_model

        judge, tokenizer = load_model(output_of(critic, "model"))
    elif model is not None:
        tokenizer = load_tokenizer(tokenizer_path(model))
    found = inspect_data(data, tokenizer, max_tokens)
    if not as_json:
        console = Console(highlight=False, soft_wrap=True)
        _table(found, console)
        if tokenizer is not None and show:
            _paint(data, tokenizer, judge, show, max_tokens, console)
    return found


def _table(found: dict[str, Any], console: Console) -> None:
    tokens = found["tokens"] or {}
    lines = [(key, found[key]) for key in ("path", "format", "records", "turns")]
    lines += [(f"tokens {key}", value) for key, value in tokens.items()]
    lines += [(key.replace("_", " "), found[key]) for key in ("unsupervised", "without_eos", "truncated")]
    lines += [(f"left out: {reason}", count) for reason, count in found.get("skipped", {}).items()]
    lines.append(("errors", len(found["errors"])))
    for name, value in lines:
        if value is not None:
            console.print(f"{name:20} {value}", markup=False)
    for error in found["errors"][:20]:
        field = "" if error["field"] is None else f"{error['field']}: "
        console.print(f"  line {error['line']}: {field}{error['message']}", markup=False, style="red")


def _paint(data: Path, tokenizer: Tokenizer, judge: Any, show: int, max_tokens: int | None, console: Console) -> None:
    for record in scan(data, strict=False).records[:show]:
        for sequence in sequences_of(record, tokenizer):
            values = None if judge is None else _prefix_values(judge, sequence.tokens[: judge.shape.context])
            if values is not None or max_tokens is not None:
                end = max_tokens if values is None else len(values)
                sequence = type(sequence)(sequence.tokens[:end], sequence.mask[:end])
                values = None if values is None else values[:end]
            console.print()
            console.print(paint(sequence, tokenizer, values))
            if values is not None:
                console.print(f"values from {min(values):.3f} to {max(values):.3f}, at the end {values[-1]:.3f}")


def _prefix_values(critic: Any, tokens: list[int]) -> list[float]:
    """The critic's value of every prefix: (n,)."""
    import torch

    from ayni.model.heads import column_values
    from ayni.model.layout import Layout

    with torch.no_grad():
        hidden = critic(torch.tensor(tokens, device=critic.device), Layout.of([len(tokens)], critic.device))
        return column_values(critic, hidden, torch.arange(len(tokens), device=critic.device)).tolist()
