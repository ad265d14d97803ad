"""Train a SentencePiece BPE tokenizer with Llama 2's settings (paper §2.2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from ayni.config import Config as Base
from ayni.errors import BadInput
from ayni.formats.reading import read_texts
from ayni.run import Run
from ayni.stage import Face, Input
from ayni.text.dedup import without
from ayni.text.tokenizer import train_tokenizer

VERSION = 1
FACE = Face(
    "records",
    inputs=(
        Input("data", "corpus.jsonl", ("texts",), many=True),
        Input("heldout", "heldout.jsonl", ("texts",), many=True, optional=True),
    ),
    leaves={"tokenizer": "tokenizer"},
)


class Config(Base):
    vocab_size: int = Field(32000, ge=300, le=1 << 20, description="pieces, 256 byte pieces and 3 special ids included")
    max_characters: int = Field(20_000_000, ge=1, description="train on at most the first so many characters")


def run(config: Config, inputs: dict[str, Any], run: Run) -> None:
    run.begin_anew()
    texts: list[str] = []
    room = config.max_characters
    heldout = [text for path in inputs.get("heldout") or [] for text in read_texts(Path(path))]
    for text in without((text for path in inputs["data"] for text in read_texts(Path(path))), heldout):
        if room <= 0:
            break
        texts.append(text[:room])
        room -= len(text)
    if not texts:
        raise BadInput("every text is held out", field="heldout", fix="hold others out, or none")
    tokenizer = train_tokenizer(texts, config.vocab_size)
    tokenizer.save(run.directory / "tokenizer")
    characters = sum(len(text) for text in texts)
    tokens = sum(len(tokenizer.encode(text)) for text in texts[:1000])
    seen = sum(len(text) for text in texts[:1000])
    run.log(0, characters=characters, characters_per_token=seen / max(tokens, 1))
    run.say(f"{tokenizer.vocab_size} pieces from {characters:,} characters, {seen / max(tokens, 1):.2f} per token")
