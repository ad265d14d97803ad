"""A model directory: a standard Hugging Face one, whole or absent, with its tokenizer, chat template and card.

Reward models are sequence classifiers with one label, and may keep settings of ours in `ayni.json`. An adapter's
directory is PEFT's: it holds the adapter alone, and says in `ayni.json` where its base lies and what that must hold.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file

from ayni.errors import BadInput
from ayni.files import atomic_directory, is_path, read_object, write_json, write_text
from ayni.model import peft_files as peft
from ayni.model.adapters import Adapted, adapted, without_adapter
from ayni.model.hugging_face import config_of, our_weights, shape_of, their_name, their_tensors
from ayni.model.score_scale import ScoreScale
from ayni.model.shape import Shape
from ayni.model.stored import Base, check_size, weight_files
from ayni.model.transformer import Transformer
from ayni.model.weights import assemble
from ayni.text.tokenizer import Tokenizer, load_tokenizer

EXTRA = "ayni.json"
BASE = "base"  # in an adapter's ayni.json: {"path": from this directory, "sha256": of the base's numbers}


class Trunks:
    """Models in memory, by what their directories hold: those of one base that are loaded with it share its tensors.

    Such a trunk is frozen, as training it would change it under all of them: only adapters over it learn.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[str, torch.dtype | None], Transformer] = {}

    def load(self, base: Base, dtype: torch.dtype | None) -> Transformer:
        """The plain model of this directory in a Transformer of its own; read where none of its kind is here."""
        kind = base.sha256, dtype
        if kind not in self._held:
            self._held[kind] = _load_plain(base, dtype).requires_grad_(False)
        return without_adapter(self._held[kind])


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

    `card` holds lines of the model card ("stage", "parents", "data", "licence", …); `extra` goes to `ayni.json`, and
    what it says of a reward model's scores to the card too. Of a
    model with an adapter only the adapter is written, and where its base lies. Raises BadInput when the tokenizer has
    more ids than the embedding has rows, ValueError for an adapter of a trunk that lies in no directory.
    """
    check_vocabulary(tokenizer, model.shape, directory)
    card = {**(card or {}), **ScoreScale.of(extra or {}, directory / EXTRA).card()}
    if isinstance(model, Adapted):
        _save_adapter(directory, model, tokenizer, card, dtype, extra or {})
        return
    dtype = dtype or model.tok_embeddings.weight.dtype
    bos, eos, pad = tokenizer.bos, tokenizer.eos, pad_id(tokenizer)
    with atomic_directory(directory) as place:
        tensors = {name: tensor.to("cpu", dtype).contiguous() for name, tensor in their_tensors(model)}
        save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
        write_json(place / "config.json", config_of(model.shape, dtype=dtype, bos=bos, eos=eos, pad=pad))
        if model.shape.head == "logits":
            write_json(place / "generation_config.json", _generation_config(bos, eos, pad))
        tokenizer.save(place)
        write_text(place / "README.md", _card(model.shape, card, _usage(model.shape)))
        if extra:
            write_json(place / EXTRA, dict(extra))


def _save_adapter(
    directory: Path,
    model: Adapted,
    tokenizer: Tokenizer,
    card: Mapping[str, str],
    dtype: torch.dtype | None,
    extra: Mapping[str, Any],
) -> None:
    if model.base is None:
        raise ValueError("the trunk under this adapter lies in no directory: save it and load it from there first")
    if BASE in extra:
        raise ValueError(f"{BASE!r} in {EXTRA} is the adapter's own")
    # relative, so that a run which is moved or copied with its base keeps both its meaning and its bytes
    base = Path(os.path.relpath(model.base.path.resolve(), directory.resolve())).as_posix()
    with atomic_directory(directory) as place:
        tensors = {name: t.to("cpu", dtype or t.dtype).contiguous() for name, t in peft.their_adapter_tensors(model)}
        save_file(tensors, place / peft.WEIGHTS, metadata={"format": "pt"})
        write_json(place / peft.CONFIG, peft.adapter_config_of(model, base))
        tokenizer.save(place)
        usage = _adapter_usage(model.shape, base, pad_id(tokenizer))
        write_text(place / "README.md", _card(model.shape, card, usage, adapter_of=base))
        write_json(place / EXTRA, {BASE: {"path": base, "sha256": model.base.sha256}, **extra})


def load_model(
    path: Path,
    *,
    dtype: torch.dtype | None = torch.float32,
    expect: Literal["logits", "score"] | None = None,
    trunks: Trunks | None = None,
) -> tuple[Transformer, Tokenizer]:
    """The model on the CPU in `dtype` (as stored: None), and its tokenizer. Nothing is ever made up.

    `expect` says which head the caller needs. With `trunks`, models of one base share its tensors, wherever those are;
    an adapter's own are at least fp32. Raises BadInput for another head, a missing, unexpected or mis-shaped weight, an
    unsupported configuration, a torn file, a tokenizer with more ids than the embedding has rows, or an adapter whose
    base is missing or another one.
    """
    path = Path(path)
    shape = read_shape(path)
    if expect not in (None, shape.head):
        kinds = {"logits": "a language model", "score": "a reward model"}
        raise BadInput(f"is {kinds[shape.head]}, but {kinds[str(expect)]} is needed here", path=path)
    tokenizer = load_tokenizer(tokenizer_of(path))
    check_vocabulary(tokenizer, shape, path)
    return load_weights(path, dtype=dtype, trunks=trunks), tokenizer


def load_weights(path: Path, *, dtype: torch.dtype | None = torch.float32, trunks: Trunks | None = None) -> Transformer:
    """`load_model` without the tokenizer."""
    path = Path(path)
    check_sizes(path, dtype)
    base = base_of(path)
    _check_base(path, base)
    trunk = _load_plain(base, dtype) if trunks is None else trunks.load(base, dtype)
    if not peft.is_adapter(path):
        return trunk
    lora, tensors = peft.read_adapter(path, trunk.shape)
    return adapted(trunk, lora, tensors)


def _load_plain(base: Base, dtype: torch.dtype | None) -> Transformer:
    shape = read_shape(base.path)
    weights = our_weights(base.path, shape)
    model = assemble(shape, weights, path=base.path, dtype=dtype, source_name=their_name)
    model.base = base
    return model


def check_sizes(path: Path, dtype: torch.dtype | None = torch.float32) -> None:
    """Whether the files of the model at `path` can hold what its configuration asks for, and memory it in `dtype`.

    Nothing large is read for it. BadInput or NoRoom, as model.stored.check_size.
    """
    read_shape(path)
    base = base_of(path)
    shape, width = read_shape(base.path), None if dtype is None else dtype.itemsize
    check_size(shape.parameters, weight_files(base.path), base.path, width)
    if peft.is_adapter(path):
        peft.check_adapter_size(path, shape)


def read_shape(path: Path) -> Shape:
    """The sizes of the model in this directory, without reading its weights."""
    if not path.is_dir():
        raise BadInput("no such model directory", path=path)
    if peft.is_adapter(path):
        config = peft.read_adapter_config(path)
        return peft.shape_of_adapted(read_shape(base_of(path).path), config, path / peft.CONFIG)
    if not (path / "config.json").is_file():
        raise BadInput("no config.json: not a model directory", path=path)
    return shape_of(read_object(path / "config.json"), path / "config.json")


def base_of(path: Path) -> Base:
    """The directory with the trunk of the model at `path`: itself, unless it is an adapter's.

    An adapter of ours says in ayni.json where its base lies from there, one of others in adapter_config.json, from
    there or from here. BadInput when it is not there, or an adapter itself.
    """
    if not peft.is_adapter(path):
        return Base(path.resolve())
    noted = _noted_base(path)
    named = noted.get("path") or peft.read_adapter_config(path).get("base_model_name_or_path")
    note = f"{BASE}.path" if "path" in noted else f'{{"{BASE}": {{"path": "…"}}}}'
    fix = f"write where it is into {EXTRA}: {note}"
    if not is_path(named):
        raise BadInput("does not say which model it is an adapter of", path=path / peft.CONFIG, fix=fix)
    places = [path.resolve() / named] if "path" in noted else [path.resolve() / named, Path(named)]
    place = next((place.resolve() for place in places if place.is_dir()), None)
    if place is None:
        what = f"its base model {named} is not there ({places[0].resolve()})"
        raise BadInput(what, path=path, fix=f"put it there, or {fix}")
    if peft.is_adapter(place):
        raise BadInput(f"its base {place} is an adapter itself", path=path, fix="merge that one: `ayni export` does")
    return Base(place)


def _check_base(path: Path, base: Base) -> None:
    """BadInput when the base of the adapter at `path` holds other numbers than it was made on."""
    due = _noted_base(path).get("sha256") if peft.is_adapter(path) else None
    if due is not None and due != base.sha256:
        what = (
            f"its base {base.path} holds other numbers (sha256 {base.sha256[:12]}…) than it was made on ({due[:12]}…)"
        )
        raise BadInput(what, path=path, fix=f"bring that model back, or write where it is into {EXTRA}: {BASE}.path")


def _noted_base(path: Path) -> dict[str, str]:
    """{path, sha256} as ayni.json has them; adapters of others have none, or only the path that a person wrote."""
    noted = _settings(path).get(BASE, {})
    if not isinstance(noted, dict) or not all(isinstance(noted.get(key, ""), str) for key in ("path", "sha256")):
        raise BadInput("expected path and sha256", path=path / EXTRA, field=BASE)
    return noted


def tokenizer_of(path: Path) -> Path:
    """The directory with the tokenizer of the model at `path`: adapters of others may leave it to their base."""
    own = any((path / name).is_file() for name in ("tokenizer.model", "tokenizer.json", "tok.bin"))
    return path if own or not peft.is_adapter(path) else base_of(path).path


def _settings(path: Path) -> dict[str, Any]:
    file = Path(path) / EXTRA
    return read_object(file) if file.is_file() else {}


def read_extra(path: Path) -> dict[str, Any]:
    """What `save_model` was given as `extra`; {} where there is none."""
    settings = _settings(path)
    return {key: value for key, value in settings.items() if key != BASE} if peft.is_adapter(Path(path)) else settings


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
    """The sampling defaults of Meta's release for chat."""
    ids = {"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": pad}
    return {**ids, "do_sample": True, "temperature": 0.6, "top_p": 0.9}


def _card(shape: Shape, card: Mapping[str, str], usage: list[str], adapter_of: str | None = None) -> str:
    score = shape.head == "score"
    kind = "reward model (one label: the raw score, before sigmoid)" if score else "language model"
    lines = [
        f"- {key.replace('_', ' ')}: {' '.join(str(value).split())}" for key, value in card.items() if key != "name"
    ]
    if "licence" not in card:
        lines.append("- licence: not stated; it follows from the data and the parent models")
    size = f"{shape.parameters:,} parameters, {shape.layers} layers of width {shape.dim}"
    what = f"A LoRA adapter of the model at `{adapter_of}`, which makes it a" if adapter_of else "A"
    return "\n".join(
        [
            "---",
            f"library_name: {'peft' if adapter_of else 'transformers'}",
            f"pipeline_tag: {'text-classification' if score else 'text-generation'}",
            "license: other",
            "---",
            "",
            f"# {card.get('name', 'A model made with ayni')}",
            "",
            f"{what} Llama-2-style {kind}: {size}, {shape.vocab:,} tokens, context {shape.context:,}.",
            "",
            *lines,
            "",
            "```python",
            *usage,
            "```",
            "",
        ]
    )


def _usage(shape: Shape) -> list[str]:
    auto = "AutoModelForSequenceClassification" if shape.head == "score" else "AutoModelForCausalLM"
    return [
        f"from transformers import {auto}, AutoTokenizer",
        "",
        f'model = {auto}.from_pretrained("DIRECTORY")',
        'tokenizer = AutoTokenizer.from_pretrained("DIRECTORY")',
    ]


def _adapter_usage(shape: Shape, base: str, pad: int) -> list[str]:
    score = shape.head == "score"
    auto = "AutoModelForSequenceClassification" if score else "AutoModelForCausalLM"
    settings = f", num_labels=1, pad_token_id={pad}" if score else ""
    return [
        "from peft import PeftModel",
        f"from transformers import {auto}, AutoTokenizer",
        "",
        f'base = {auto}.from_pretrained("DIRECTORY/{base}"{settings})',
        'model = PeftModel.from_pretrained(base, "DIRECTORY")',
        'tokenizer = AutoTokenizer.from_pretrained("DIRECTORY")',
    ]
