"""`ayni encode`: what a model would read, as ids and mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ayni.cli.lines import at_line, read_lines, write_lines
from ayni.cli.stages import tokenizer_path
from ayni.errors import BadInput
from ayni.records import Dialog, TokenSequence
from ayni.runs.status import located
from ayni.text.chat import render, render_prompt
from ayni.text.tokenizer import Tokenizer, load_tokenizer


def encode(tokenizer: Path, file: Path, output: Path | None, as_json: bool) -> dict[str, Any]:
    """Rows {index, tokens, mask}: plain text has no BOS and is all supervised; an open dialogue ends in [/INST]."""
    loaded = load_tokenizer(tokenizer_path(tokenizer))
    rows, file = [], located(file)
    for index, (line, item) in enumerate(read_lines(file)):
        try:
            sequence = _sequence(item, loaded)
        except BadInput as error:
            raise at_line(error, file, line) from None
        rows.append({"index": index, "tokens": sequence.tokens, "mask": sequence.mask})
    return write_lines(rows, output, as_json)


def _sequence(item: str | Dialog, tokenizer: Tokenizer) -> TokenSequence:
    if isinstance(item, str):
        tokens = tokenizer.encode(item)
        return TokenSequence(tokens, [True] * len(tokens))
    if item and item[-1].role == "user":
        tokens = render_prompt(item, tokenizer)
        return TokenSequence(tokens, [False] * len(tokens))
    return render(item, tokenizer)
