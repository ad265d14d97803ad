"""Pretraining: weighted sources, duplicates out, the held-out set out, packed rows of equal length (paper §2)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from ayni.errors import BadInput
from ayni.formats.reading import read_texts
from ayni.model.shape import Shape
from ayni.model.transformer import Transformer, initialise
from ayni.model_directory import save_model
from ayni.records import TokenSequence
from ayni.run import Run
from ayni.seeds import rng, seed_of
from ayni.stage import Face, Input
from ayni.text.dedup import without_duplicates
from ayni.text.tokenizer import Tokenizer, load_tokenizer
from ayni.train.objectives import NextToken
from ayni.train.trainer import Fitting, Optimiser

VERSION = 1
FACE = Face(
    "fits",
    inputs=(
        Input("tokenizer", "tokenizer", ("tokenizer", "language_model", "reward_model")),  # a model holds its own
        Input("data", "corpus.jsonl", ("texts",), many=True),
        Input("heldout", "heldout.jsonl", ("texts",), many=True, optional=True),
    ),
    leaves={"model": "language_model"},
)


class Config(Fitting):
    """The shape, the diet, and the schedule. Paper: 2T tokens, 4M a step."""

    dim: int = Field(4096, ge=2)
    layers: int = Field(32, ge=1)
    heads: int = Field(32, ge=1)
    kv_heads: int = Field(32, ge=1)
    hidden: int = Field(11008, ge=1, description="SwiGLU's width")
    context: int = Field(4096, ge=2, description="longest sequence the model is meant for")
    tied: bool = Field(False, description="one matrix for embedding and output")
    row_tokens: int = Field(4096, ge=2, description="documents are laid end to end and cut into rows of this length")
    tokens: int | None = Field(None, ge=1, description="tokens to train on; default: `epochs` over the mix")
    weights: tuple[float, ...] | None = Field(None, strict=False, description="one per source; 2 = seen twice an epoch")
    epochs: float = Field(1, gt=0)
    near_duplicates: bool = Field(True, description="drop near duplicates too, not only exact ones")

    optimiser: Optimiser = Field(Optimiser(lr=3e-4, warmup=2000), description="AdamW and its schedule")

    @model_validator(mode="after")
    def _fits(self) -> Config:
        if any(weight < 0 for weight in self.weights or ()):
            raise ValueError(f"weights {list(self.weights or ())} must not be negative")
        if self.lora is not None:
            raise ValueError("an adapter needs a trained trunk: lora is for the stages after this one")
        self.shape(vocab=1)  # raises where heads or sizes do not go together
        if self.row_tokens > self.context:
            raise ValueError(f"row_tokens {self.row_tokens} is more than the context {self.context}")
        return self

    def shape(self, vocab: int) -> Shape:
        sizes = (self.dim, self.layers, self.heads, self.kv_heads, self.hidden)
        return Shape(*sizes, vocab, self.context, tied=self.tied)


def run(config: Config, inputs: dict[str, Any], run: Run) -> None:
    tokenizer = load_tokenizer(inputs["tokenizer"])
    shape = config.shape(tokenizer.vocab_size)
    rows = packed_rows(sources(config, inputs, run), tokenizer, config, run)
    if config.tokens is not None:
        epochs = config.tokens / (len(rows) * config.row_tokens)
        config = config.model_copy(update={"epochs": epochs})
    run.say(f"{shape.parameters:,} parameters, {len(rows) * config.row_tokens:,} tokens, {config.epochs:.2f} epochs")
    model = initialise(Transformer(shape), seed_of(run.seed, run.name, "weights"))
    config.fit(model, rows, NextToken(), run)
    if run.leads:
        save_model(run.directory / "model", model, tokenizer, card={"stage": "pretrain"})


def sources(config: Config, inputs: dict[str, Any], run: Run) -> list[str]:
    """Every document as often as its source's weight says, in one shuffled order."""
    paths = [Path(path) for path in inputs["data"]]
    weights = config.weights or (1.0,) * len(paths)
    if len(weights) != len(paths):
        raise BadInput(f"{len(weights)} weights for {len(paths)} sources", field="weights", fix="give one per source")
    heldout = [text for path in inputs.get("heldout") or [] for text in read_texts(Path(path))]
    texts: list[str] = []
    taken: list[str] = list(heldout)
    for path, weight in zip(paths, weights, strict=True):
        found = list(read_texts(path))
        fresh = without_duplicates(found, against=taken, near=config.near_duplicates)
        taken += fresh
        run.say(f"{path.name}: {len(found)} documents, {len(found) - len(fresh)} duplicates or held out dropped")
        whole, part = divmod(weight, 1)
        chosen = rng(run.seed, run.name, "upsample", path.name).permutation(len(fresh))[: round(part * len(fresh))]
        texts += fresh * int(whole) + [fresh[i] for i in chosen]
    if not texts:
        raise BadInput("no document is left to train on", path=paths[0])
    return [texts[i] for i in rng(run.seed, run.name, "documents").permutation(len(texts))]


def packed_rows(texts: list[str], tokenizer: Tokenizer, config: Config, run: Run) -> list[TokenSequence]:
    """BOS text EOS, end to end, cut every `row_tokens`; a last incomplete row is dropped."""
    ids: list[int] = []
    for done, text in enumerate(texts, 1):
        ids += [tokenizer.bos, *tokenizer.encode(text), tokenizer.eos]
        if done % 1000 == 0:
            run.progress(done, len(texts), "document")
    stream = np.array(ids)
    length = config.row_tokens
    if len(stream) < length:
        raise BadInput(f"the corpus has {len(stream)} tokens, a row {length}", fix="lower row_tokens or add text")
    rows = stream[: len(stream) // length * length].reshape(-1, length)
    mask = [False] + [True] * (length - 1)
    return [TokenSequence(row.tolist(), mask) for row in rows]
