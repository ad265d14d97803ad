"""Pretraining: weighted sources, duplicates out, the held-out set out, packed rows of equal length (paper §2)."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from ayni.errors import BadInput
from ayni.files import atomic_directory
from ayni.formats.reading import read_texts
from ayni.memory import need_memory
from ayni.model.shape import Shape
from ayni.model.transformer import Transformer, initialise
from ayni.model_directory import save_model
from ayni.parallel import once
from ayni.run import Run
from ayni.seeds import rng, seed_of
from ayni.stage import Face, Input
from ayni.text.dedup import FINGERPRINT, duplicates, fingerprint
from ayni.text.token_file import PackedRows, TokenFile, write_token_file
from ayni.text.tokenizer import Tokenizer, load_tokenizer
from ayni.train.objectives import NextToken
from ayni.train.trainer import Fitting, Optimiser

VERSION = 2
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
    tokens: int | None = Field(
        None, ge=0, description="tokens to train on; default: `epochs` over the mix; 0: the random start itself"
    )
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
    # fp32: weights, and where they are trained gradients and Adam's two moments
    need_memory((4 if config.tokens == 0 else 16) * shape.parameters, f"a model of {shape.parameters:,} parameters")
    rows = None if config.tokens == 0 else packed_rows(config, inputs, tokenizer, run)
    # after the rows: bad input is found before a large model takes its memory
    model = initialise(Transformer(shape), seed_of(run.seed, run.name, "weights"))
    if rows is not None:
        if config.tokens is not None:
            config = config.model_copy(update={"epochs": config.tokens / (len(rows) * config.row_tokens)})
        tokens = len(rows) * config.row_tokens
        run.say(f"{shape.parameters:,} parameters, {tokens:,} tokens, {config.epochs:.2f} epochs")
        config.fit(model, rows, NextToken(), run)
    if run.leads:
        save_model(run.directory / "model", model, tokenizer, card={"stage": "pretrain"})


def packed_rows(config: Config, inputs: dict[str, Any], tokenizer: Tokenizer, run: Run) -> PackedRows:
    """The mix as rows, from a token file that is made once: who resumes finds it among the checkpoints."""
    place = run.checkpoints / "tokens"

    def make() -> None:
        with atomic_directory(place) as directory:
            np.save(directory / "order.npy", prepare(config, inputs, tokenizer, run, directory))

    once(place, make)
    order = np.load(place / "order.npy", mmap_mode="r")
    rows = PackedRows(TokenFile(place, tokenizer.vocab_size), order, config.row_tokens)
    if not len(rows):
        if run.leads:
            shutil.rmtree(place)  # a file so small is no work to keep
        what = f"the corpus has {rows.tokens} tokens, a row {config.row_tokens}"
        raise BadInput(what, fix="lower row_tokens or add text")
    return rows


def prepare(config: Config, inputs: dict[str, Any], tokenizer: Tokenizer, run: Run, directory: Path) -> np.ndarray:
    """Writes every document of the sources into a token file, as BOS text EOS, and says which of them make up the mix:
    their numbers in a shuffled order, each as often as its source's weight says, without duplicates and what is held
    out. No text is kept in memory."""
    paths = [Path(path) for path in inputs["data"]]
    weights = config.weights or (1.0,) * len(paths)
    if len(weights) != len(paths):
        raise BadInput(f"{len(weights)} weights for {len(paths)} sources", field="weights", fix="give one per source")
    prints, sizes = directory / "fingerprints.bin", [0] * len(paths)
    with open(prints, "wb") as file:

        def remembered(texts: Iterable[str]) -> Iterator[str]:
            for text in texts:
                file.write(fingerprint(text, near=config.near_duplicates).tobytes())
                yield text

        def documents() -> Iterator[list[int]]:
            for source, path in enumerate(paths):
                for text in remembered(read_texts(path)):
                    yield [tokenizer.bos, *tokenizer.encode(text), tokenizer.eos]
                    sizes[source] += 1
                    if sizes[source] % 1000 == 0:
                        run.progress(sum(sizes), None, "document")

        heldout = sum(1 for path in inputs.get("heldout") or [] for _ in remembered(read_texts(Path(path))))
        write_token_file(directory, documents(), tokenizer.vocab_size)
    fresh = ~duplicates(np.memmap(prints, FINGERPRINT, "r"))[heldout:]
    prints.unlink()
    mix, start = [], 0
    for path, weight, size in zip(paths, weights, sizes, strict=True):
        kept = start + np.flatnonzero(fresh[start : start + size])
        run.say(f"{path.name}: {size:,} documents, {size - len(kept):,} duplicates or held out dropped")
        whole, part = divmod(weight, 1)
        chosen = rng(run.seed, run.name, "upsample", path.name).permutation(len(kept))[: round(part * len(kept))]
        mix += [np.tile(kept, int(whole)), kept[chosen]]
        start += size
    order = np.concatenate(mix)
    if not len(order):
        raise BadInput("no document is left to train on", path=paths[0])
    return order[rng(run.seed, run.name, "documents").permutation(len(order))]
