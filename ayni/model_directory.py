"""A model directory: a standard Hugging Face one, whole or absent, with its tokenizer, chat template and card.

Reward models are sequence classifiers with one label, and may keep settings of ours in `ayni.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file

from ayni.errors import BadInput
from ayni.files import atomic_directory, read_json, write_json, write_text
from ayni.model.hugging_face import config_of, our_weights, shape_of, their_name, their_tensors
from ayni.model.shape import Shape
from ayni.model.transformer import Transformer
from ayni.model.weights import assemble
from ayni.text.tokenizer import Tokenizer, load_tokenizer

EXTRA = "ayni.json"


def save_model(
    directory: Path,
    model: Transformer,
    tokenizer: Tokenizer,
    *,
    card: Mapping[str, str] | None = None,
    dtype: torch.dtype | None = None,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write the model, in `dtype` (its own: None), in place of an older directory, in one step.

    `card` holds lines of the model card ("stage", "parents", "data", "licence", …); `extra` goes to `ayni.json`.
    Raises BadInput when the tokenizer has more ids than the embedding has rows.
    """
    check_vocabulary(tokenizer, model.shape, directory)
    dtype = dtype or model.tok_embeddings.weight.dtype
    bos, eos, pad = tokenizer.bos, tokenizer.eos, pad_id(tokenizer)
    with atomic_directory(directory) as place:
        tensors = {name: tensor.to("cpu", dtype).contiguous() for name, tensor in their_tensors(model)}
        save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
        write_json(place / "config.json", config_of(model.shape, dtype=dtype, bos=bos, eos=eos, pad=pad))
        if model.shape.head == "logits":
            write_json(place / "generation_config.json", _generation_config(bos, eos, pad))
        tokenizer.save(place)
        write_text(place / "README.md", _card(model.shape, card or {}))
        if extra:
            write_json(place / EXTRA, dict(extra))


def load_model(
    path: Path, *, dtype: torch.dtype | None = torch.float32, expect: Literal["logits", "score"] | None = None
) -> tuple[Transformer, Tokenizer]:
    """The model on the CPU in `dtype` (as stored: None), and its tokenizer. Nothing is ever made up.

    `expect` says which head the caller needs. Raises BadInput for another head, a missing, unexpected or mis-shaped
    weight, an unsupported configuration, a torn file, or a tokenizer with more ids than the embedding has rows.
    """
    path = Path(path)
    shape = read_shape(path)
    if expect not in (None, shape.head):
        kinds = {"logits": "a language model", "score": "a reward model"}
        raise BadInput(f"is {kinds[shape.head]}, but {kinds[str(expect)]} is needed here", path=path)
    tokenizer = load_tokenizer(path)
    check_vocabulary(tokenizer, shape, path)
    return load_weights(path, dtype=dtype), tokenizer


def load_weights(path: Path, *, dtype: torch.dtype | None = torch.float32) -> Transformer:
    """`load_model` without the tokenizer."""
    shape = read_shape(path)
    return assemble(shape, our_weights(path, shape), path=path, dtype=dtype, source_name=their_name)


def read_shape(path: Path) -> Shape:
    """The sizes of the model in this directory, without reading its weights."""
    if not path.is_dir():
        raise BadInput("no such model directory", path=path)
    if not (path / "config.json").is_file():
        raise BadInput("no config.json: not a model directory", path=path)
    return shape_of(read_json(path / "config.json"), path / "config.json")


def read_extra(path: Path) -> dict[str, Any]:
    """What `save_model` was given as `extra`; {} where there is none."""
    file = Path(path) / EXTRA
    value = read_json(file) if file.is_file() else {}
    if not isinstance(value, dict):
        raise BadInput("expected an object", path=file, line=1)
    return value


def check_vocabulary(tokenizer: Tokenizer, shape: Shape, path: Path) -> None:
    """BadInput unless every id of the tokenizer has a row in the embedding (spare rows are common and harmless)."""
    if tokenizer.vocab_size > shape.vocab:
        what = f"mismatched tokenizer: {tokenizer.vocab_size} ids, but the embedding has {shape.vocab} rows"
        raise BadInput(what, path=path, field="vocab_size")


def pad_id(tokenizer: Tokenizer) -> int:
    """The id that others may pad with; ayni itself never pads.

    transformers reads a sequence classifier at the last id that is not pad, so pad must not be EOS: the tokenizer's
    own, else unk, else BOS, as in its special_tokens_map.json.
    """
    if tokenizer.pad is not None and tokenizer.pad != tokenizer.eos:
        return tokenizer.pad
    spare = tokenizer.unk if tokenizer.unk >= 0 else tokenizer.bos
    if spare == tokenizer.eos:
        raise BadInput("the tokenizer has no id to pad with but EOS", fix="give it a pad token")
    return spare


def _generation_config(bos: int, eos: int, pad: int) -> dict[str, Any]:
    """The paper's sampling defaults for chat (RECIPE §3)."""
    ids = {"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": pad}
    return {**ids, "do_sample": True, "temperature": 0.6, "top_p": 0.9}


def _card(shape: Shape, card: Mapping[str, str]) -> str:
    score = shape.head == "score"
    task = "text-classification" if score else "text-generation"
    auto = "AutoModelForSequenceClassification" if score else "AutoModelForCausalLM"
    kind = "reward model (one label: the raw score, before sigmoid)" if score else "language model"
    lines = [
        f"- {key.replace('_', ' ')}: {' '.join(str(value).split())}" for key, value in card.items() if key != "name"
    ]
    if "licence" not in card:
        lines.append("- licence: not stated; it follows from the data and the parent models")
    return "\n".join(
        [
            "---",
            "library_name: transformers",
            f"pipeline_tag: {task}",
            "license: other",
            "---",
            "",
            f"# {card.get('name', 'A model made with ayni')}",
            "",
            f"A Llama-2-style {kind}: {shape.parameters:,} parameters, {shape.layers} layers of width {shape.dim}, "
            f"{shape.vocab:,} tokens, context {shape.context:,}.",
            "",
            *lines,
            "",
            "```python",
            f"from transformers import {auto}, AutoTokenizer",
            "",
            f'model = {auto}.from_pretrained("DIRECTORY")',
            'tokenizer = AutoTokenizer.from_pretrained("DIRECTORY")',
            "```",
            "",
        ]
    )


def name_of(path: Path) -> str:
    """What to call a model directory: its stage's name in a run (`03-sft-1f3a9c2e/model` is `sft`), else its own."""
    folder = Path(path).resolve()
    folder = folder.parent if folder.name == "model" else folder
    parts = folder.name.split("-")
    staged = len(parts) > 2 and parts[0].isdigit() and len(parts[-1]) == 8
    return "-".join(parts[1:-1]) if staged else folder.name
