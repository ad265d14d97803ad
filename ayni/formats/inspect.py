"""What is in a data file, and how it looks to the model: counts, lengths, errors, painted tokens."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rich.text import Text

from ayni.errors import BadInput
from ayni.formats.reading import scan
from ayni.records import (
    Comparison,
    Constraint,
    Demonstration,
    Dialog,
    Judgement,
    Message,
    Principle,
    Prompt,
    TokenSequence,
)
from ayni.text.chat import answer_tokens, compared_tokens, render, render_prompt, render_text
from ayni.text.tokenizer import Tokenizer

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
Record = Demonstration | Comparison | Judgement | Prompt | Constraint | Principle | str


def sequences_of(record: Record, tokenizer: Tokenizer) -> list[TokenSequence]:
    """The sequences a record is trained on: one, or two for a comparison; a prompt's has nothing supervised."""
    if isinstance(record, Demonstration):
        return [render(record.dialog, tokenizer, record.train, record.finished)]
    if isinstance(record, Comparison):
        return list(compared_tokens(record, tokenizer))
    if isinstance(record, Judgement):
        return [answer_tokens(record.prompt.dialog, record.response, tokenizer, record.finished)]
    if isinstance(record, Prompt | Constraint | Principle):
        rendered = [render_prompt(asked, tokenizer) for asked in _asked(record)]
        return [TokenSequence(tokens, [False] * len(tokens)) for tokens in rendered]
    return [render_text(record, tokenizer)]


def _asked(record: Prompt | Constraint | Principle) -> list[Dialog]:
    """What of it a user says."""
    if isinstance(record, Prompt):
        return [record.dialog]
    texts = [record.long] if isinstance(record, Constraint) else [record.critique, record.revision]
    return [(Message("user", text),) for text in texts]


def _turns(record: Record) -> int:
    if isinstance(record, str | Constraint | Principle):
        return 0
    dialog = record.prompt.dialog if isinstance(record, Comparison | Judgement) else record.dialog
    return sum(message.role == "user" for message in dialog)


def _audit(records: list[Any], tokenizer: Tokenizer, max_tokens: int | None) -> dict[str, Any]:
    total = supervised = longest = unsupervised = without_eos = truncated = 0
    for record in records:
        sequences = sequences_of(record, tokenizer)
        truncated += max_tokens is not None and any(len(s.tokens) > max_tokens for s in sequences)
        unmasked = True
        for sequence in sequences:
            total += len(sequence.tokens)
            supervised += sum(sequence.mask)
            longest = max(longest, len(sequence.tokens))
            taught = [t for t, m in zip(sequence.tokens[:max_tokens], sequence.mask, strict=False) if m]
            unmasked = unmasked and not taught
            without_eos += bool(taught) and taught[-1] != tokenizer.eos
        unsupervised += unmasked
    return {
        "tokens": {"total": total, "supervised": supervised, "max": longest},
        "unsupervised": unsupervised,
        "without_eos": without_eos,
        "truncated": truncated if max_tokens is not None else None,
    }


def _error(error: BadInput) -> dict[str, Any]:
    message = error.what if error.fix is None else f"{error.what}; {error.fix}"
    return {"line": error.line, "field": error.field, "message": message}


def inspect_data(path: Path, tokenizer: Tokenizer | None = None, max_tokens: int | None = None) -> dict[str, Any]:
    """Counts and errors of a data file or directory, in the shape of `ayni inspect --json`.

    `turns` counts user messages. `tokens` are before truncation; after cutting at `max_tokens`, `unsupervised` counts
    records without a supervised token and `without_eos` sequences whose last supervised token is not EOS;
    `truncated` counts records longer than `max_tokens`. All of these are None without a tokenizer. `skipped` counts
    rows left out by their format's policy. Raises BadInput when nothing of the file can be read.
    """
    scanned = scan(path, strict=False)
    audit: dict[str, Any] = {"tokens": None, "unsupervised": None, "without_eos": None, "truncated": None}
    if tokenizer is not None:
        audit = _audit(scanned.records, tokenizer, max_tokens)
    return {
        "path": str(path),
        "format": scanned.format,
        "records": len(scanned.records),
        "turns": sum(map(_turns, scanned.records)),
        "errors": [_error(error) for error in scanned.errors],
        **audit,
        "skipped": dict(scanned.skipped),
    }


def paint(sequence: TokenSequence, tokenizer: Tokenizer, values: list[float] | None = None) -> Text:
    """The tokens as coloured text: supervised green, context dim, special ids in reverse.

    With `values` (n,), one number a token, colour shows the value instead: red for the lowest, green for the highest.
    Control characters are shown as escapes, so no text can drive the terminal.
    """
    if values is not None and len(values) != len(sequence.tokens):
        raise ValueError(f"{len(values)} values for {len(sequence.tokens)} tokens")
    text = Text()
    low, high = (min(values), max(values)) if values else (0.0, 0.0)
    for index, (token, supervised) in enumerate(zip(sequence.tokens, sequence.mask, strict=True)):
        if values is not None:
            share = (values[index] - low) / (high - low) if high > low else 0.5
            style = f"rgb({round(220 * (1 - share))},{round(180 * share)},60)"
        else:
            style = "green" if supervised else "dim"
        if token in tokenizer.special:
            style += " reverse"
        text.append(_visible(tokenizer.piece(token)), style=style)
    return text


def _visible(piece: str) -> str:
    """A piece as it may be printed: ▁ is a space, line breaks are marked and kept, other controls are escaped."""
    if piece == "<0x0A>":
        return "⏎\n"
    byte = _BYTE.fullmatch(piece)
    shown = chr(int(byte[1], 16)) if byte and int(byte[1], 16) < 0x80 else piece.replace("▁", " ")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in shown)
