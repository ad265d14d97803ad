"""What of a stranger's tokenizer.json may reach the library that runs it.

That library panics, or ends the whole process, on some of what its format can say, and does as it is told with the
rest: a normaliser that doubles a text forty times. So what can grow is measured, and what cannot be is refused. What
is put where nothing stood loses its place in the text there, and the next normaliser panics: it is refused too.
"""

from __future__ import annotations

import re
from typing import Any

from ayni.text.model_proto import check_size

MOST_GROWTH = 512  # characters out for one in, at most
# By how much each kind of part may lengthen a text. (Precompiled is not here: its tables say anything.)
_NORMALISERS = {
    **dict.fromkeys(("Strip", "StripAccents", "Nmt", "Prepend"), 1),
    **dict.fromkeys(("Lowercase", "BertNormalizer"), 3),
    **dict.fromkeys(("NFC", "NFD", "ByteLevel"), 4),
    **dict.fromkeys(("NFKC", "NFKD"), 18),
}
_DECODERS = dict.fromkeys(
    ("ByteFallback", "ByteLevel", "Fuse", "Strip", "Metaspace", "WordPiece", "BPEDecoder", "CTC"), 2
)


def check_tokenizer(value: dict[str, Any]) -> None:
    """ValueError, LookupError, TypeError or AttributeError for a tokenizer that is broken or would break something."""
    _check_model(value["model"])
    begins_with(value.get("post_processor"), "")
    for name, key, known in (("normalizer", "normalizers", _NORMALISERS), ("decoder", "decoders", _DECODERS)):
        if value.get(name) is not None and (growth := _growth(value[name], key, known)) > MOST_GROWTH:
            raise ValueError(f"its {name} makes a text up to {growth:.3g} times as long")


def _check_model(model: dict[str, Any]) -> None:
    vocab = model["vocab"]
    pieces = [piece for piece, _ in vocab] if isinstance(vocab, list) else list(vocab)
    ids = range(len(vocab)) if isinstance(vocab, list) else vocab.values()
    check_size(max(ids) + 1, max(map(len, pieces)))
    if model.get("continuing_subword_prefix") and model.get("type") == "BPE":
        raise ValueError("BPE with a prefix inside words is not read here")
    if model.get("dropout"):
        raise ValueError("with dropout a text has other tokens every time")


def _growth(part: dict[str, Any], inside: str, known: dict[str, int]) -> float:
    kind = part["type"]
    if kind == "Sequence":
        growth = 1.0
        for each in part[inside]:
            growth = min(growth * _growth(each, inside, known), 1e9)
        return growth
    if kind == "Prepend" and not part["prepend"]:
        raise ValueError("it puts nothing before a text")
    if kind == "Replace":
        ((which, pattern),) = part["pattern"].items()
        if part["content"] and not (len(pattern) if which == "String" else _shortest_match(pattern)):
            raise ValueError(f"its pattern {pattern!r} finds nothing and replaces that")
        return len(part["content"]) + 1 if which != "String" else max(1, len(part["content"]) / len(pattern))
    if kind not in known:
        raise ValueError(f"what {kind} does to a text cannot be told")
    return known[kind]


def _shortest_match(pattern: str) -> int:
    """Characters that a regular expression takes at least; ValueError for one that is not read alike everywhere."""
    try:
        return int(re._parser.parse(pattern).getwidth()[0])  # type: ignore[attr-defined]
    except (re.error, RecursionError, OverflowError):
        raise ValueError(f"what the pattern {pattern!r} finds cannot be told") from None


def begins_with(processor: dict[str, Any] | None, name: str) -> bool:
    """Whether a post-processor puts this token before a text; errors as above."""
    if processor is None:
        return False
    kind = processor["type"]
    if kind == "Sequence":
        return any(begins_with(part, name) for part in processor["processors"])
    if kind == "TemplateProcessing":
        return bool(processor["single"][0].get("SpecialToken", {}).get("id") == name)
    return kind in ("BertProcessing", "RobertaProcessing") and bool(processor["cls"][0] == name)
