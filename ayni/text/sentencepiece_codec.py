"""SentencePiece BPE as Llama 2 uses it: training, loading, text to ids and back (paper §2.2)."""

from __future__ import annotations

import hashlib
import io
import math
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import sentencepiece

from ayni.errors import BadInput
from ayni.text.model_proto import BPE, CONTROL, UNKNOWN, USER_DEFINED, Vocabulary, parse_model

_LLAMA2: dict[str, Any] = {
    "model_type": "bpe",
    "normalization_rule_name": "identity",
    "add_dummy_prefix": True,
    "remove_extra_whitespaces": False,
    "split_digits": True,
    "split_by_unicode_script": True,
    "split_by_whitespace": True,
    "split_by_number": True,
    "allow_whitespace_only_pieces": True,
    "byte_fallback": True,
    "max_sentencepiece_length": 16,
    "character_coverage": 0.99995,
    "unk_id": 0,
    "bos_id": 1,
    "eos_id": 2,
    "pad_id": -1,
}


class SentencePieceCodec:
    """A loaded SentencePiece BPE model."""

    def __init__(self, model: bytes, path: Path | str | None = None) -> None:
        try:
            self.vocabulary: Vocabulary = parse_model(model)
        except (ValueError, IndexError, struct.error) as error:
            raise BadInput(f"not a SentencePiece model ({error})", path=path) from None
        v = self.vocabulary
        if v.model_type != BPE or not v.byte_fallback:
            raise BadInput("the SentencePiece model is not BPE with byte fallback", path=path)
        if v.charsmap or v.remove_extra_whitespaces or not v.escape_whitespaces or v.whitespace_as_suffix:
            raise BadInput("the SentencePiece model normalises text; Llama 2's do not", path=path)
        if any(piece.kind == USER_DEFINED for piece in v.pieces):
            raise BadInput("the SentencePiece model holds user-defined symbols; Llama 2's have none", path=path)
        if not (0 < v.bos < len(v.pieces) and 0 < v.eos < len(v.pieces)):
            raise BadInput("the SentencePiece model has no BOS or no EOS", path=path)
        for name, id in (("BOS", v.bos), ("EOS", v.eos)):
            if v.pieces[id].kind != CONTROL:
                what = f"{name} is the ordinary piece {v.pieces[id].text!r}, which any text may hold"
                raise BadInput(what, path=path, fix="give a tokenizer with control pieces for BOS and EOS")
        if not (-1 <= v.pad < len(v.pieces) and 0 <= v.unk < len(v.pieces)):
            raise BadInput("the SentencePiece model names a pad or unknown piece that it has not", path=path)
        if not all(math.isfinite(piece.score) for piece in v.pieces):
            raise BadInput("the SentencePiece model has a score that is no number", path=path)
        try:
            self.processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except (RuntimeError, OSError) as error:
            raise BadInput(f"SentencePiece cannot load the model ({error})", path=path) from None
        self.model = model
        self.bos, self.eos, self.unk = v.bos, v.eos, v.unk
        self.pad = v.pad if v.pad >= 0 else None
        self.vocab_size = len(v.pieces)
        self.special = frozenset(
            id for id, piece in enumerate(v.pieces) if piece.kind in (CONTROL, UNKNOWN)
        )  # fmt: skip

    def encode(self, text: str) -> list[int]:
        return self.processor.encode(text)

    def decode(self, ids: list[int]) -> str:
        return self.processor.decode(ids)

    def piece(self, id: int) -> str:
        return self.vocabulary.pieces[id].text

    def fingerprint(self) -> str:
        v = self.vocabulary
        digest = hashlib.sha256(f"sentencepiece {v.unk} {v.bos} {v.eos} {v.pad} {v.add_dummy_prefix}\n".encode())
        for piece in v.pieces:
            score = piece.score + 0.0  # -0.0 and 0.0 encode alike
            digest.update(f"{piece.kind} {score.hex()} {piece.text}\0".encode())
        return digest.hexdigest()


def _lines(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield from (line for line in text.split("\n") if line)


def train_sentencepiece(texts: Iterable[str], vocab_size: int, **settings: Any) -> bytes:
    """A trained model file: SentencePiece BPE with Llama 2's settings, the same bytes for the same texts.

    `settings` override SentencePiece options by name. Raises BadInput when the texts are empty, or too small
    or too varied for `vocab_size`. Texts are split at line breaks, which encode as the byte piece `<0x0A>`.
    """
    model = io.BytesIO()
    options = {**_LLAMA2, "max_sentence_length": 1 << 20, "num_threads": 1, "minloglevel": 3, **settings}
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_lines(texts), model_writer=model, vocab_size=vocab_size, **options
        )
    except (RuntimeError, OSError) as error:
        reason = str(error)
        if "sentences_.empty()" in reason:
            raise BadInput("there is no text to train a tokenizer on", field="data") from None
        reason = reason.rpartition("] ")[2].strip() or reason
        raise BadInput(f"SentencePiece cannot train: {reason}", field="vocab_size") from None
    return model.getvalue()
