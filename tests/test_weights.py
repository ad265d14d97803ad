"""Model directories: round trips, and one plain line for everything that can be wrong with one."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import build, edit_json, refused, same, small_tokenizer, truncate

from ayni.files import Killed
from ayni.model.hugging_face import halves_to_pairs, our_name, pairs_to_halves, their_name
from ayni.model.transformer import initialise
from ayni.model_directory import load_model, read_extra, save_model
from ayni.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return small_tokenizer()


@pytest.fixture
def directory(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    save_model(tmp_path / "model", build(), tokenizer)
    return tmp_path / "model"


def edit_tensors(directory: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, directory / "model.safetensors")


@pytest.mark.parametrize(
    "change",
    [{}, {"tied": True}, {"kv_heads": 2}, {"head": "score"}, {"norm_eps": 1e-6, "theta": 1e6}, {"vocab": 300}],
    ids=["plain", "tied", "gqa", "score", "eps", "spare rows"],
)
def test_a_directory_gives_back_what_it_was_given(tmp_path: Path, tokenizer: Tokenizer, change: dict) -> None:
    model = build(**change)
    save_model(tmp_path / "m", model, tokenizer)
    loaded, its_tokenizer = load_model(tmp_path / "m")
    assert same(loaded, model)
    assert its_tokenizer.fingerprint == tokenizer.fingerprint
    assert all(p.requires_grad and p.is_contiguous() for p in loaded.parameters())
    names = {file.name for file in (tmp_path / "m").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja", "README.md"} <= names
    assert ("generation_config.json" in names) == (model.shape.head == "logits")
    assert [file.name for file in tmp_path.iterdir()] == ["m"]


def test_loaded_weights_are_no_longer_tied_to_the_file(directory: Path) -> None:
    model, _ = load_model(directory)
    before = model.head.clone()
    (directory / "model.safetensors").write_bytes(b"\0" * (directory / "model.safetensors").stat().st_size)
    assert torch.equal(model.head, before)


def test_card_and_extra_settings(tmp_path: Path, tokenizer: Tokenizer) -> None:
    save_model(tmp_path / "plain", build(), tokenizer)
    assert read_extra(tmp_path / "plain") == {}
    extra = {"normalisation": {"mean": 0.5, "std": 2.0}}
    card = {"name": "Village judge", "stage": "reward", "parents": "sft", "licence": "CC0"}
    save_model(tmp_path / "rm", build(head="score"), tokenizer, card=card, extra=extra)
    assert read_extra(tmp_path / "rm") == extra
    text = (tmp_path / "rm" / "README.md").read_text()
    for part in ("# Village judge", "- stage: reward", "- parents: sft", "SequenceClassification", "- licence: CC0"):
        assert part in text
    (tmp_path / "rm" / "ayni.json").write_text("[]")
    assert "ayni.json:1: expected an object" in refused(lambda: read_extra(tmp_path / "rm"))


def test_a_killed_save_leaves_the_old_model(
    directory: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, _ = load_model(directory)
    for place in ("file-written", "directory-written"):
        monkeypatch.setenv("AYNI_FAILPOINT", place)
        with pytest.raises(Killed):
            save_model(directory, initialise(build(), 1), tokenizer)
        monkeypatch.delenv("AYNI_FAILPOINT")
        assert same(load_model(directory)[0], before)
        assert [file.name for file in directory.parent.iterdir()] == ["model"]
    save_model(directory, initialise(build(), 1), tokenizer)
    assert not same(load_model(directory)[0], before)


def test_pad_is_never_eos(directory: Path, tokenizer: Tokenizer) -> None:
    config = json.loads((directory / "config.json").read_text())
    assert config["pad_token_id"] == tokenizer.unk
    assert config["pad_token_id"] != config["eos_token_id"] == tokenizer.eos


def test_names_and_rotation_go_both_ways() -> None:
    for name, _ in build().named_parameters():
        assert our_name(their_name(name)) == name
    assert their_name("layers.7.feed_forward.w2.weight") == "model.layers.7.mlp.down_proj.weight"
    assert our_name("model.layers.0.self_attn.q_proj.bias") is None
    # two heads of size 4: rows 0 1 2 3 rotate as (0, 1), (2, 3); Hugging Face pairs row i with row i + 2
    rows = torch.arange(8)[:, None]
    halves = pairs_to_halves(rows, 2)
    assert halves[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert torch.equal(halves_to_pairs(halves, 2), rows)


# --- what is wrong with a directory


def drop(name: str) -> Callable[[Path], None]:
    return lambda d: edit_tensors(d, lambda tensors: tensors.pop(name))


def put(name: str, tensor: torch.Tensor) -> Callable[[Path], None]:
    return lambda d: edit_tensors(d, lambda tensors: tensors.update({name: tensor}))


def config(**change: Any) -> Callable[[Path], None]:
    return lambda d: edit_json(d / "config.json", **change)


def index(places: Any) -> Callable[[Path], None]:
    def move(directory: Path) -> None:
        (directory / "model.safetensors").unlink()
        (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))

    return move


def pickled(value: Any) -> Callable[[Path], None]:
    def write(directory: Path) -> None:
        (directory / "model.safetensors").unlink()
        torch.save(value, directory / "pytorch_model.bin")

    return write


PADDING = torch.zeros(20_000)  # so that the file is large enough for the model
Q = "model.layers.1.self_attn.q_proj.weight"
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "weight missing": (drop(Q), f"{Q}: the weight is missing"),
    "head missing": (drop("lm_head.weight"), "lm_head.weight: the weight is missing"),
    "weight unexpected": (put("model.layers.2.mlp.up_proj.weight", torch.ones(24, 16)), "layers.2.mlp.up_proj.weight"),
    "bias": (put("model.layers.0.self_attn.q_proj.bias", torch.ones(16)), "Llama has no such weight"),
    "adapter": (put("lora_A", torch.ones(1)), "lora_A: Llama has no such weight"),
    "score in a language model": (put("score.weight", torch.ones(1, 16)), "score.weight: the configuration has no"),
    "shape": (put("model.norm.weight", torch.ones(17)), "norm.weight: the weight is 17, the configuration says 16"),
    "rows of q": (put(Q, torch.ones(20, 16)), f"{Q}: the weight is 20×16, the configuration says 16×16"),
    "dimensions of q": (put(Q, torch.ones(256)), f"{Q}: the weight is 256,"),
    "integers": (put("model.norm.weight", torch.ones(16, dtype=torch.int8)), "torch.int8, not real numbers"),
    "truncated weights": (truncate("model.safetensors", 0.9), "not a whole safetensors file"),
    "truncated header": (truncate("model.safetensors", 0.001), "the weight files hold only "),
    "empty weights": (truncate("model.safetensors", 0), "the weight files hold only 0 bytes"),
    "no weights": (lambda d: (d / "model.safetensors").unlink(), "no weights here"),
    "no config": (lambda d: (d / "config.json").unlink(), "no config.json"),
    "truncated config": (truncate("config.json", 0.5), "config.json:"),
    "config is a list": (lambda d: (d / "config.json").write_text("[]"), "expected an object"),
    "no tokenizer": (lambda d: [(d / f"tokenizer.{end}").unlink() for end in ("model", "json")], "no tokenizer.model"),
    "architecture": (config(architectures=["MistralForCausalLM"]), '["MistralForCausalLM"] is not supported'),
    "no architecture": (config(architectures=None), "architectures"),
    "model type": (config(model_type="qwen2"), "architectures"),
    "scaled rope": (config(rope_scaling={"rope_type": "llama3", "factor": 8.0}), "rope_scaling"),
    "rope of transformers 5": (config(rope_parameters={"rope_type": "yarn", "rope_theta": 1e4}), "rope_parameters"),
    "partial rope": (config(rope_parameters={"rope_theta": 1e4, "partial_rotary_factor": 0.5}), "rope_parameters"),
    "attention bias": (config(attention_bias=True), "attention_bias: true is not supported"),
    "mlp bias": (config(mlp_bias=True), "mlp_bias"),
    "activation": (config(hidden_act="gelu"), 'hidden_act: "gelu" is not supported'),
    "quantized": (config(quantization_config={"bits": 4}), "quantization_config"),
    "head size": (config(head_dim=8), "head_dim: 8 is not"),
    "wrong type": (config(hidden_size="16"), 'hidden_size: "16" is not a whole number'),
    "bool for number": (config(num_hidden_layers=True), "num_hidden_layers: true is not a whole number"),
    "field missing": (config(intermediate_size=None), "intermediate_size: missing"),
    "zero layers": (config(num_hidden_layers=0), "layers: 0 is not positive"),
    "heads do not divide": (config(num_attention_heads=3), "does not split into 3 heads"),
    "epsilon": (config(rms_norm_eps=-1.0), "rms_norm_eps: -1.0 is not a positive number"),
    "more layers than weights": (config(num_hidden_layers=3), "model.layers.2.self_attn.q_proj.weight: the weight is"),
    "mismatched tokenizer": (config(vocab_size=200), "mismatched tokenizer: 284 ids, but the embedding has 200 rows"),
    "tied but different": (config(tie_word_embeddings=True), "lm_head.weight: differs from the embedding"),
    "index without map": (index(None), "weight_map: expected an object"),
    "index to elsewhere": (index({"a": "../../model.safetensors"}), "is not a file beside this one"),
    "shard missing": (index({"a": "model-00001-of-00002.safetensors"}), "its shard model-00001-of-00002.saf"),
    "pickled list": (pickled([PADDING]), "expected tensors by name"),
    "pickled checkpoint": (pickled({"step": 3, "pad": PADDING}), "step: expected tensors by name"),
    "garbage pickle": (
        lambda d: ((d / "model.safetensors").unlink(), (d / "pytorch_model.bin").write_bytes(b"garbage" * 9999)),
        "not a whole file of tensors",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_directory_is_refused_in_one_line(directory: Path, case: str) -> None:
    load_model(directory)
    breaks, says = BROKEN[case]
    breaks(directory)
    line = refused(lambda: load_model(directory))
    assert says in line
    assert str(directory) in line


def test_no_directory(tmp_path: Path) -> None:
    assert "no such model directory" in refused(lambda: load_model(tmp_path / "nowhere"))


def test_a_reward_model_without_its_head_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    save_model(tmp_path / "rm", build(head="score"), tokenizer)
    drop("score.weight")(tmp_path / "rm")
    assert "score.weight: the weight is missing" in refused(lambda: load_model(tmp_path / "rm"))
    put("score.weight", torch.ones(2, 16))(tmp_path / "rm")
    assert "score.weight: the weight is 2×16" in refused(lambda: load_model(tmp_path / "rm"))
    config(id2label={"0": "a", "1": "b"})(tmp_path / "rm")
    assert "id2label: a reward model has one label, this one 2" in refused(lambda: load_model(tmp_path / "rm"))


def test_the_wrong_kind_of_model_is_refused(directory: Path, tokenizer: Tokenizer) -> None:
    line = refused(lambda: load_model(directory, expect="score"))
    assert "is a language model, but a reward model is needed here" in line
    save_model(directory, build(head="score"), tokenizer)
    assert "is a reward model, but a language model" in refused(lambda: load_model(directory, expect="logits"))
    assert load_model(directory, expect="score")[0].shape.head == "score"


def test_a_mismatched_tokenizer_is_not_saved(tmp_path: Path, tokenizer: Tokenizer) -> None:
    assert "mismatched tokenizer" in refused(lambda: save_model(tmp_path / "m", build(vocab=283), tokenizer))
    assert not any(tmp_path.iterdir())


class _Attack:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("kind", ["zip", "plain"])
def test_nothing_from_outside_is_unpickled(directory: Path, tmp_path: Path, kind: str) -> None:
    marker, file = tmp_path / "marker", directory / "pytorch_model.bin"
    (directory / "model.safetensors").unlink()
    if kind == "zip":
        torch.save({"model.norm.weight": _Attack(marker), "pad": PADDING}, file)
    else:
        file.write_bytes(pickle.dumps((_Attack(marker), bytes(80_000))))
    assert "not a whole file of tensors" in refused(lambda: load_model(directory))
    assert not marker.exists()
