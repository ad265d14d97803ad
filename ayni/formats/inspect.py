"""What is in a data file: counts, lengths, errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
    Question,
    TokenSequence,
    turns_of,
)
from ayni.text.chat import answer_tokens, compared_tokens, render, render_prompt, render_text
from ayni.text.tokenizer import Tokenizer

Record = Demonstration | Comparison | Judgement | Prompt | Constraint | Principle | Question | str


def sequences_of(record: Record, tokenizer: Tokenizer) -> list[TokenSequence]:
    """The sequences a record is trained on: one, or two for a comparison; a prompt's has nothing supervised."""
    if isinstance(record, Demonstration):
        return [render(record.dialog, tokenizer, record.train, record.finished)]
    if isinstance(record, Comparison):
        return list(compared_tokens(record, tokenizer))
    if isinstance(record, Judgement):
        return [answer_tokens(record.prompt.dialog, record.response, tokenizer, record.finished)]
    if isinstance(record, Prompt | Constraint | Principle | Question):
        rendered = [render_prompt(asked, tokenizer) for asked in _asked(record)]
        return [TokenSequence(tokens, [False] * len(tokens)) for tokens in rendered]
    return [render_text(record, tokenizer)]


def _asked(record: Prompt | Constraint | Principle | Question) -> list[Dialog]:
    """What of it a user says."""
    if isinstance(record, Prompt):
        return [record.dialog]
    if isinstance(record, Principle):
        texts = [record.critique, record.revision]
    else:
        texts = [record.long if isinstance(record, Constraint) else record.question]
    return [(Message("user", text),) for text in texts]


def _turns(record: Record) -> int:
    if isinstance(record, str | Constraint | Principle | Question):
        return 0
    dialog = record.prompt.dialog if isinstance(record, Comparison | Judgement) else record.dialog
    return turns_of(dialog)


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
