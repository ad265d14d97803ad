"""Adapter directories: PEFT's numbers in both directions, found again with their base or refused in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from small_models import build, edit_json, refused, same, small_tokenizer, truncate
from torch import Tensor

from ayni.conversion import export_model, import_model
from ayni.files import sha256_of
from ayni.model.adapters import (
    Adapted,
    Lora,
    adapter_of,
    adapter_shapes,
    adapter_tensors,
    copy_adapter,
    merged,
    with_adapter,
)
from ayni.model.heads import column_values
from ayni.model.layout import Layout
from ayni.model.peft_files import our_adapter_name, their_adapter_name
from ayni.model.score_head import with_score_head
from ayni.model.trainable import to_train
from ayni.model.transformer import Transformer
from ayni.model_directory import Trunks, load_model, load_weights, read_extra, read_shape, save_model, tokenizer_of
from ayni.text.tokenizer import Tokenizer

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
Q = "base_model.model.model.layers.1.self_attn.q_proj"
# peft says so of what transformers deprecates
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

SHAPES = pytest.mark.parametrize(
    "change",
    [{}, {"kv_heads": 2}, {"kv_heads": 1, "tied": True}, {"heads": 2, "kv_heads": 1, "theta": 5000.0}],
    ids=["mha", "gqa", "mqa-tied", "wide heads"],
)
LORAS = pytest.mark.parametrize(
    "lora",
    [
        Lora(rank=4, alpha=8),
        Lora(rank=3, alpha=4.5, layers=2),
        Lora(rank=2, alpha=6, targets=("wk", "wq")),
        Lora(rank=5, alpha=5, layers=1, targets=("w2", "wo", "w1")),
    ],
    ids=["all", "last two blocks", "queries and keys", "some of the last block"],
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return small_tokenizer()


def large(**change: Any) -> Transformer:
    """Weights large enough that logits spread and attention is not flat."""
    model = build(layers=3, **change)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(10 if parameter.ndim > 1 else 1)
    return model


def stirred(model: Transformer, seed: int = 0) -> Adapted:
    assert isinstance(model, Adapted)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in adapter_tensors(model).items():
            if name.endswith("lora_B"):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.2)
    return model


def tokens(count: int = 50, seed: int = 0) -> Tensor:
    return torch.randint(3, 284, (count,), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def ours(model: Transformer, ids: Tensor) -> Tensor:
    """Logits (T, V), or the score (1,)."""
    layout = Layout.of([len(ids)])
    if model.shape.head == "score":
        return column_values(model, model(ids, layout, layout.ends))
    return model(ids, layout) @ model.head.t()


@torch.no_grad()
def theirs(model: Any, ids: Tensor, head: str) -> Tensor:
    out = model(input_ids=ids[None]).logits
    return out[:, 0] if head == "score" else out[0]


def in_peft(directory: Path, base: Path, head: str) -> Any:
    """As the card says."""
    if head == "score":
        start = transformers.AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, pad_token_id=0)
    else:
        start = transformers.AutoModelForCausalLM.from_pretrained(base)
    return peft.PeftModel.from_pretrained(start, str(directory)).eval()


@pytest.fixture
def pair(tmp_path: Path, tokenizer: Tokenizer) -> tuple[Path, Path]:
    """A base and an adapter on it, side by side."""
    save_model(tmp_path / "run" / "base", large(kv_heads=2), tokenizer)
    model = stirred(with_adapter(load_model(tmp_path / "run" / "base")[0], Lora(rank=4, alpha=8), seed=0))
    save_model(tmp_path / "run" / "sft" / "model", model, tokenizer)
    return tmp_path / "run" / "base", tmp_path / "run" / "sft" / "model"


# parity


@SHAPES
@LORAS
@pytest.mark.parametrize("head", ["logits", "score"])
def test_peft_computes_the_same_from_what_is_written_here(
    tmp_path: Path, tokenizer: Tokenizer, change: dict[str, Any], lora: Lora, head: str
) -> None:
    save_model(tmp_path / "base", large(**change), tokenizer)
    plain, _ = load_model(tmp_path / "base")
    model = stirred(with_adapter(plain, lora, seed=0))
    if head == "score":
        model = stirred(with_score_head(model, seed=5))
    save_model(tmp_path / "adapter", model, tokenizer)
    ids = tokens()
    expected = theirs(in_peft(tmp_path / "adapter", tmp_path / "base", head), ids, head)
    assert (ours(model, ids) - ours(with_score_head(plain, 5) if head == "score" else plain, ids)).abs().max() > 0.01
    torch.testing.assert_close(ours(model, ids), expected, rtol=0, atol=1e-5)

    again, its_tokenizer = load_model(tmp_path / "adapter", expect=head)  # type: ignore[arg-type]
    assert same(again, model)
    assert adapter_of(again) == replace_targets(lora)
    assert its_tokenizer.fingerprint == tokenizer.fingerprint
    assert read_shape(tmp_path / "adapter") == model.shape


def replace_targets(lora: Lora) -> Lora:
    """With the targets in the order in which they are read."""
    return lora.model_copy(update={"targets": tuple(t for t in Lora().targets if t in lora.targets)})


@SHAPES
@pytest.mark.parametrize("head", ["logits", "score"])
@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]},
        {"target_modules": ["k_proj", "q_proj", "down_proj"], "layers_to_transform": [2, 1], "lora_alpha": 3},
        {"target_modules": ["gate_proj"], "layers_to_transform": 2, "layers_pattern": "layers"},
        {"target_modules": "all-linear", "lora_dropout": 0.1},
    ],
    ids=["all", "some", "one", "all-linear"],
)
def test_what_peft_writes_computes_the_same_here(
    tmp_path: Path, tokenizer: Tokenizer, change: dict[str, Any], head: str, settings: dict[str, Any]
) -> None:
    save_model(tmp_path / "base", large(**change), tokenizer)
    torch.manual_seed(0)
    if head == "score":
        start = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=1)
    else:
        start = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    task = "SEQ_CLS" if head == "score" else "CAUSAL_LM"
    config = peft.LoraConfig(r=3, task_type=task, init_lora_weights=False, **settings)
    model = peft.get_peft_model(start, config).eval()
    for name, parameter in model.named_parameters():
        # B is drawn so large that fp32 rounds beyond 1e-5, the score's weights small
        parameter.data.mul_(0.5 if "lora_B" in name else 20 if "score" in name else 1)
    model.save_pretrained(str(tmp_path / "adapter"))
    loaded, its_tokenizer = load_model(tmp_path / "adapter")
    assert loaded.shape.head == head
    assert its_tokenizer.fingerprint == tokenizer.fingerprint  # the base's: peft writes none
    ids = tokens()
    with model.disable_adapter():
        assert (ours(loaded, ids) - theirs(model, ids, head)).abs().max() > 0.005
    torch.testing.assert_close(ours(loaded, ids), theirs(model, ids, head), rtol=0, atol=1e-5)

    # and back: bit for bit the tensors that peft wrote
    save_model(tmp_path / "ours", loaded, tokenizer)
    before, after = (load_file(tmp_path / name / WEIGHTS) for name in ("adapter", "ours"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_peft_reads_every_key_of_our_configuration(pair: tuple[Path, Path]) -> None:
    config = peft.LoraConfig.from_pretrained(str(pair[1]))
    assert (config.r, config.lora_alpha, config.task_type, config.inference_mode) == (4, 8, "CAUSAL_LM", True)
    assert config.base_model_name_or_path == "../../base"
    known = peft.LoraConfig().to_dict()
    written = json.loads((pair[1] / CONFIG).read_text())
    assert written.keys() <= known.keys()


def test_names_go_both_ways() -> None:
    for name in adapter_shapes(replace(build().shape, head="score"), Lora()):
        assert our_adapter_name(their_adapter_name(name)) == name
    assert their_adapter_name("layers.7.feed_forward.w2.lora_B") == (
        "base_model.model.model.layers.7.mlp.down_proj.lora_B.weight"
    )
    assert their_adapter_name("score.weight") == "base_model.model.score.weight"
    for name in ("base_model.model.lm_head.lora_A.weight", "base_model.model.model.norm.weight", "score.weight"):
        assert our_adapter_name(name) is None


# directories


def test_what_an_adapter_directory_holds(pair: tuple[Path, Path], tokenizer: Tokenizer) -> None:
    base, place = pair
    names = {file.name for file in place.iterdir()}
    assert {CONFIG, WEIGHTS, "README.md", "ayni.json", "tokenizer.json", "chat_template.jinja"} <= names
    assert not names & {"config.json", "model.safetensors", "generation_config.json"}
    noted = json.loads((place / "ayni.json").read_text())
    kept = {"config.json", "model.safetensors"}
    assert noted == {"base": {"path": "../../base", "sha256": sha256_of(base, lambda file: str(file) in kept)}}
    card = (place / "README.md").read_text()
    for part in ('from_pretrained("DIRECTORY/../../base")', "PeftModel.from_pretrained(base", "../../base"):
        assert part in card
    theirs = transformers.AutoTokenizer.from_pretrained(place)
    assert theirs("the baker").input_ids == [tokenizer.bos, *tokenizer.encode("the baker")]
    assert tokenizer_of(place) == place


def test_extra_settings_stand_beside_the_base(pair: tuple[Path, Path], tokenizer: Tokenizer) -> None:
    model, _ = load_model(pair[1])
    save_model(pair[1], model, tokenizer, extra={"normalisation": {"mean": 0.5}}, card={"stage": "reward"})
    assert read_extra(pair[1]) == {"normalisation": {"mean": 0.5}}
    assert "- stage: reward" in (pair[1] / "README.md").read_text()
    assert same(load_model(pair[1])[0], model)
    with pytest.raises(ValueError, match="adapter's own"):
        save_model(pair[1], model, tokenizer, extra={"base": 1})


def test_a_moved_run_still_loads_and_its_bytes_do_not_tell_where_it_lies(
    pair: tuple[Path, Path], tmp_path: Path, tokenizer: Tokenizer
) -> None:
    model, _ = load_model(pair[1])
    shutil.copytree(tmp_path / "run", tmp_path / "elsewhere" / "deeper" / "run")
    shutil.rmtree(tmp_path / "run")
    moved = tmp_path / "elsewhere" / "deeper" / "run" / "sft" / "model"
    assert same(load_model(moved)[0], model)
    before = sha256_of(moved)
    save_model(moved, load_model(moved)[0], tokenizer)
    assert sha256_of(moved) == before
    link = tmp_path / "link"
    link.symlink_to(moved)
    assert same(load_model(link)[0], model)


def test_models_loaded_with_trunks_share_their_base(
    pair: tuple[Path, Path], tmp_path: Path, tokenizer: Tokenizer
) -> None:
    base, place = pair
    reward = with_score_head(load_model(place)[0], seed=1)
    save_model(tmp_path / "run" / "reward", reward, tokenizer)
    shutil.copytree(base, tmp_path / "same")
    trunks = Trunks()
    plain = load_model(base, trunks=trunks)[0]
    roles = [load_model(path, trunks=trunks)[0] for path in (place, tmp_path / "run" / "reward", tmp_path / "same")]
    pointers = {p.data_ptr() for p in plain.parameters()}
    for role in roles:
        own = adapter_tensors(role) if adapter_of(role) else {}
        assert {p.data_ptr() for name, p in role.named_parameters() if name not in own} <= pointers
        assert not any(p.requires_grad for name, p in role.named_parameters() if name not in own)
    assert {id(plain), *map(id, roles)} == {id(plain)} | {id(role) for role in roles}
    assert roles[1].shape.head == "score"
    for role, path in zip(roles, (place, tmp_path / "run" / "reward", base), strict=True):
        assert same(role, load_model(path)[0])
    other = load_model(place, trunks=trunks, dtype=torch.bfloat16)[0]
    assert other.tok_embeddings.weight.dtype == torch.bfloat16
    assert {p.dtype for p in adapter_tensors(other).values()} == {torch.float32}


def test_a_policy_made_with_trunks_finds_its_base_again(pair: tuple[Path, Path], tokenizer: Tokenizer) -> None:
    """An adapter on a plain model, and a copy of an adapter, are saved against the directory of their trunk."""
    base, place = pair
    trunks = Trunks()
    fresh = with_adapter(load_model(base, trunks=trunks)[0], Lora(rank=2), seed=0)
    later = copy_adapter(load_model(place, trunks=trunks)[0])
    for model, name in ((fresh, "fresh"), (later, "later")):
        save_model(base.parent / name, model, tokenizer)
        assert json.loads((base.parent / name / "ayni.json").read_text())["base"]["path"] == "../base"
        assert same(load_model(base.parent / name)[0], model)


def test_a_trunk_in_no_directory_has_no_adapter_to_save(
    pair: tuple[Path, Path], tmp_path: Path, tokenizer: Tokenizer
) -> None:
    plain, _ = load_model(pair[0])
    plain = to_train(plain, None, 0)  # from here on it is not what its directory holds
    for model in (plain, build(), with_score_head(load_model(pair[0])[0], 0)):
        with pytest.raises(ValueError, match="lies in no directory"):
            save_model(tmp_path / "new", with_adapter(model, Lora(rank=2), 0), tokenizer)
    assert not (tmp_path / "new").exists()


def test_an_adapter_of_a_reward_model(tmp_path: Path, tokenizer: Tokenizer) -> None:
    save_model(tmp_path / "rm", with_score_head(large(), 0), tokenizer)
    model = stirred(with_adapter(load_model(tmp_path / "rm")[0], Lora(rank=4, alpha=8), seed=0))
    with torch.no_grad():
        model.head.mul_(2)
    save_model(tmp_path / "adapter", model, tokenizer)
    assert same(load_model(tmp_path / "adapter", expect="score")[0], model)
    ids = tokens()
    expected = theirs(in_peft(tmp_path / "adapter", tmp_path / "rm", "score"), ids, "score")
    torch.testing.assert_close(ours(model, ids), expected, rtol=0, atol=1e-5)
    edit_json(tmp_path / "adapter" / CONFIG, task_type="CAUSAL_LM", modules_to_save=None)
    assert "task_type: its base is a reward model" in refused(lambda: load_model(tmp_path / "adapter"))


def test_a_base_in_shards_or_pickled_is_hashed_and_read(pair: tuple[Path, Path], tokenizer: Tokenizer) -> None:
    base, _ = pair
    whole = transformers.AutoModelForCausalLM.from_pretrained(base)
    whole.save_pretrained(base.parent / "sharded", max_shard_size="20KB")
    assert len(list((base.parent / "sharded").glob("model-*.safetensors"))) > 1
    tokenizer.save(base.parent / "sharded")
    model = stirred(with_adapter(load_model(base.parent / "sharded")[0], Lora(rank=2), seed=0))
    save_model(base.parent / "on shards", model, tokenizer)
    assert same(load_model(base.parent / "on shards")[0], model)
    last = sorted((base.parent / "sharded").glob("model-*.safetensors"))[-1]
    save_file({name: t + 1 for name, t in load_file(last).items()}, last)
    assert "holds other numbers" in refused(lambda: load_model(base.parent / "on shards"))


# import and export


def test_export_merges(pair: tuple[Path, Path], tmp_path: Path, tokenizer: Tokenizer) -> None:
    base, place = pair
    model, _ = load_model(place)
    save_model(place, model, tokenizer, extra={"note": 1})
    export_model(place, tmp_path / "hf", "hf")
    whole, its_tokenizer = load_model(tmp_path / "hf")
    assert adapter_of(whole) is None
    assert same(whole, merged(model))
    assert read_extra(tmp_path / "hf") == {"note": 1}
    assert its_tokenizer.fingerprint == tokenizer.fingerprint
    ids = tokens()
    torch.testing.assert_close(ours(whole, ids), ours(model, ids), rtol=0, atol=1e-5)
    there = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    torch.testing.assert_close(theirs(there, ids, "logits"), ours(model, ids), rtol=0, atol=1e-5)
    export_model(place, tmp_path / "meta", "meta")
    import_model(tmp_path / "meta", tmp_path / "back")
    assert same(load_model(tmp_path / "back")[0], whole)
    assert read_extra(tmp_path / "back") == {"note": 1}
    export_model(place, tmp_path / "c.bin", "llama2c")

    reward = stirred(with_score_head(model, seed=1))
    save_model(base.parent / "reward", reward, tokenizer)
    export_model(base.parent / "reward", tmp_path / "rm", "hf")
    torch.testing.assert_close(
        ours(load_model(tmp_path / "rm", expect="score")[0], ids), ours(reward, ids), rtol=0, atol=1e-5
    )


def test_import_keeps_an_adapter_one_and_writes_down_its_base(tmp_path: Path, tokenizer: Tokenizer) -> None:
    save_model(tmp_path / "base", large(), tokenizer, dtype=torch.bfloat16)
    start = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    config = peft.LoraConfig(r=3, task_type="CAUSAL_LM", init_lora_weights=False, target_modules=["v_proj"])
    peft.get_peft_model(start, config).save_pretrained(str(tmp_path / "theirs"))
    import_model(tmp_path / "theirs", tmp_path / "in" / "adapter")
    noted = json.loads((tmp_path / "in" / "adapter" / "ayni.json").read_text())
    assert noted["base"].keys() == {"path", "sha256"}
    assert noted["base"]["path"] == "../../base"
    assert same(load_weights(tmp_path / "in" / "adapter"), load_weights(tmp_path / "theirs"))


# what is wrong with one


def drop(name: str) -> Callable[[Path], None]:
    return lambda d: edit_tensors(d, lambda tensors: tensors.pop(name))


def put(name: str, tensor: Tensor) -> Callable[[Path], None]:
    return lambda d: edit_tensors(d, lambda tensors: tensors.update({name: tensor}))


def edit_tensors(directory: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(directory / WEIGHTS)
    change(tensors)
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, directory / WEIGHTS)


def config(**change: Any) -> Callable[[Path], None]:
    return lambda d: edit_json(d / CONFIG, **change)


def base(**change: Any) -> Callable[[Path], None]:
    def edit(directory: Path) -> None:
        noted = json.loads((directory / "ayni.json").read_text())["base"]
        edit_json(directory / "ayni.json", base={**noted, **change})

    return edit


def other_base(directory: Path) -> None:
    place = directory / "../../base/model.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(place).items()}, place)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "tensor missing": (drop(f"{Q}.lora_B.weight"), f"{Q}.lora_B.weight: the weight is missing"),
    "tensor unexpected": (
        put("base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight", torch.ones(4, 16)),
        "layers.3.self_attn.q_proj.lora_A.weight: the configuration has no such weight",
    ),
    "embedding": (
        put("base_model.model.model.embed_tokens.weight", torch.ones(284, 16)),
        "embed_tokens.weight: no adapter of a Llama's",
    ),
    "head": (put("base_model.model.lm_head.lora_A.weight", torch.ones(4, 16)), "lm_head.lora_A.weight: no adapter of"),
    "magnitude": (put(f"{Q}.lora_magnitude_vector", torch.ones(16)), "lora_magnitude_vector: no adapter of a Llama's"),
    "score of a language model": (put("base_model.model.score.weight", torch.ones(1, 16)), "score.weight: the config"),
    "sizes of A": (put(f"{Q}.lora_A.weight", torch.ones(3, 16)), "lora_A.weight: the weight is 3×16, the configurat"),
    "sizes of B": (put(f"{Q}.lora_B.weight", torch.ones(20, 4)), "lora_B.weight: the weight is 20×4, the configurat"),
    "integers": (put(f"{Q}.lora_A.weight", torch.ones(4, 16, dtype=torch.int8)), "torch.int8, not real numbers"),
    "torn": (truncate(WEIGHTS, 0.9), "not a whole safetensors file"),
    "no tensors": (lambda d: (d / WEIGHTS).unlink(), f"no {WEIGHTS}"),
    "another rank": (config(r=5), "the weight is 4×24, the configuration says 5×24"),
    "list": (lambda d: (d / CONFIG).write_text("[]"), "expected an object"),
    "torn config": (truncate(CONFIG, 0.5), f"{CONFIG}:"),
    "other method": (config(peft_type="IA3"), 'peft_type: "IA3" is not supported; supported: LORA'),
    "other task": (config(task_type="SEQ_2_SEQ_LM"), 'task_type: "SEQ_2_SEQ_LM" is not supported'),
    "dora": (config(use_dora=True), "use_dora: true is not supported"),
    "rslora": (config(use_rslora=True), "use_rslora: true is not supported"),
    "bias": (config(bias="all"), 'bias: "all" is not supported'),
    "bias of B": (config(lora_bias=True), "lora_bias"),
    "transposed": (config(fan_in_fan_out=True), "fan_in_fan_out"),
    "ranks by pattern": (config(rank_pattern={"q_proj": 8}), 'rank_pattern: {"q_proj": 8} is not supported'),
    "alphas by pattern": (config(alpha_pattern={"q_proj": 8}), "alpha_pattern"),
    "excluded": (config(exclude_modules=["q_proj"]), "exclude_modules"),
    "tokens": (config(trainable_token_indices=[1]), "trainable_token_indices"),
    "layers doubled": (config(layer_replication=[[0, 2], [1, 3]]), "layer_replication"),
    "init that changes the base": (config(init_lora_weights="pissa"), 'init_lora_weights: "pissa" is not supported'),
    "not yet known": (config(use_something_new=True), "use_something_new: true is not supported"),
    "embeddings trained": (config(modules_to_save=["embed_tokens"]), 'modules_to_save: ["embed_tokens"] is not'),
    "score trained": (config(modules_to_save=["score"]), 'modules_to_save: ["score"] is not supported'),
    "targets by pattern": (config(target_modules=".*q_proj"), 'target_modules: ".*q_proj" is not supported'),
    "no targets": (config(target_modules=None), "target_modules: null is not supported; supported: a list of q_proj"),
    "unknown target": (config(target_modules=["q_proj", "lm_head"]), 'target_modules: ["q_proj", "lm_head"] is not'),
    "fewer targets": (config(target_modules=["q_proj"]), "the configuration has no such weight"),
    "first layers": (config(layers_to_transform=[0, 1]), "layers_to_transform: [0, 1] is not supported"),
    "layers that are none": (config(layers_to_transform=[2, 3]), "layers_to_transform: [2, 3] is not supported"),
    "layers as text": (config(layers_to_transform="2"), 'layers_to_transform: "2" is not supported'),
    "other layers' name": (config(layers_pattern="h"), 'layers_pattern: "h" is not supported'),
    "rank": (config(r=0), "r: 0 is not from 1 to 16,384"),
    "rank as text": (config(r="4"), 'r: "4" is not a whole number'),
    "alpha": (config(lora_alpha=-1), "lora_alpha: -1 is not a positive number"),
    "alpha missing": (config(lora_alpha=None), "lora_alpha: missing"),
    "base gone": (
        lambda d: shutil.rmtree(d / "../../base"),
        "its base model ../../base is not there (",
    ),
    "base elsewhere": (base(path="../nowhere"), "put it there, or write where it is into ayni.json: base.path"),
    "base changed": (other_base, "holds other numbers (sha256 "),
    "base has no weights": (lambda d: (d / "../../base/model.safetensors").unlink(), "no weights here"),
    "base is no model": (lambda d: (d / "../../base/config.json").unlink(), "no config.json: not a model directory"),
    "base is an adapter": (base(path="."), "is an adapter itself; merge that one"),
    "base of another kind": (base(path=3), "base: expected path and sha256"),
    "no base": (
        lambda d: ((d / "ayni.json").unlink(), edit_json(d / CONFIG, base_model_name_or_path=None)),
        'does not say which model it is an adapter of; write where it is into ayni.json: {"base": {"path": "…"}}',
    ),
    "base on a hub": (
        lambda d: ((d / "ayni.json").unlink(), edit_json(d / CONFIG, base_model_name_or_path="meta/Llama-2-7b")),
        "its base model meta/Llama-2-7b is not there",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_adapter_is_refused_in_one_line(pair: tuple[Path, Path], case: str) -> None:
    load_model(pair[1])
    breaks, says = BROKEN[case]
    breaks(pair[1])
    line = refused(lambda: load_model(pair[1]))
    assert says in line
    assert str(pair[1]) in line or str(pair[0]) in line


@pytest.mark.parametrize(
    "change",
    [
        {"lora_dropout": 0.5, "inference_mode": False, "revision": "main", "init_lora_weights": "gaussian"},
        {"layers_to_transform": [], "layers_pattern": ["layers"], "rank_pattern": {}, "use_dora": False},
        {"task_type": None, "auto_mapping": {"base_model_class": "LlamaForCausalLM"}},
    ],
    ids=["training", "empty", "no task"],
)
def test_what_changes_no_number_is_read_over(pair: tuple[Path, Path], change: dict[str, Any]) -> None:
    model, _ = load_model(pair[1])
    edit_json(pair[1] / CONFIG, **change)
    assert same(load_model(pair[1])[0], model)


def test_a_missing_score_is_refused(pair: tuple[Path, Path], tokenizer: Tokenizer) -> None:
    save_model(pair[1], with_score_head(load_model(pair[1])[0], 0), tokenizer)
    drop("base_model.model.score.weight")(pair[1])
    assert "base_model.model.score.weight: the weight is missing" in refused(lambda: load_model(pair[1]))
    assert "is a reward model, but a language model" in refused(lambda: load_model(pair[1], expect="logits"))


def test_a_base_may_be_given_anew(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """A person may say where it lies now; its hash, where it is known, must still be right."""
    model, _ = load_model(pair[1])
    shutil.move(pair[0], tmp_path / "moved")
    base(path=str(tmp_path / "moved"))(pair[1])
    assert same(load_model(pair[1])[0], model)
    edit_json(pair[1] / "ayni.json", base={"path": "../../../moved"})
    assert same(load_model(pair[1])[0], model)
    (pair[1] / "ayni.json").unlink()
    edit_json(pair[1] / CONFIG, base_model_name_or_path=str(tmp_path / "moved"))
    assert same(load_model(pair[1])[0], model)


def test_tokenizer_files_and_cards_of_the_base_may_change(pair: tuple[Path, Path]) -> None:
    model, _ = load_model(pair[1])
    (pair[0] / "README.md").write_text("another card")
    (pair[0] / "ayni.json").write_text("{}")
    assert same(load_model(pair[1])[0], model)
