"""What a model's files may claim: billions of layers, terabytes out of a few bytes, NaN. Told in one line, at once."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mutated import little_memory, outcome
from safetensors.torch import load_file, save_file
from small_models import build, edit_json, small_tokenizer

from ayni.config import parse_config
from ayni.conversion import import_model
from ayni.errors import BadInput, NoRoom
from ayni.memory import need_memory
from ayni.model.adapters import Lora, with_adapter
from ayni.model.llama2c import write_llama2c
from ayni.model.meta import write_meta
from ayni.model.pickled import load_tensors
from ayni.model.shape import MOST, Shape
from ayni.model.stored import check_size
from ayni.model_directory import load_model, save_model
from ayni.rollout.store import read_chunks
from ayni.runs.execution import content_hash, execute
from ayni.runs.faces import load_stage
from ayni.runs.kinds import mismatch
from ayni.stage import Input

HUGE = 2**40  # bytes of a file that has none on the disk
Q = "model.layers.1.self_attn.q_proj.weight"
VALUES: list[Any] = [10**9, 10**18, 10**400, 2**31, 0, -1, True, 0.5, "16", [16], {}, float("nan"), float("inf")]


def hugging_face(place: Path) -> Path:
    save_model(place / "m", build(), small_tokenizer())
    return place / "m"


def pickled(place: Path) -> Path:
    m = hugging_face(place)
    torch.save(load_file(m / "model.safetensors"), m / "pytorch_model.bin")
    (m / "model.safetensors").unlink()
    return m


def meta(place: Path) -> Path:
    (place / "m").mkdir()
    write_meta(place / "m", build())
    small_tokenizer().save(place / "m")
    return place / "m"


def llama2c(place: Path) -> Path:
    write_llama2c(place / "m.bin", build(tied=True))
    small_tokenizer().save(place)
    return place / "m.bin"


def peft(place: Path) -> Path:
    save_model(place / "base", build(), small_tokenizer())
    model = with_adapter(load_model(place / "base")[0], Lora(rank=2, alpha=4), seed=0)
    save_model(place / "m", model, small_tokenizer())
    return place / "m"


def refused(path: Path) -> str:
    """The line that importing it ends with, soon and without much memory; nothing is made."""
    out = path.parent / "out"
    with little_memory():
        line = outcome(lambda: import_model(path, out))
    assert line is not None
    assert not out.exists()
    return line


# numbers in settings


@pytest.mark.parametrize(
    "key",
    [
        *("num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size", "num_attention_heads"),
        *("num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "rope_theta", "head_dim"),
    ],
)
def test_numbers_of_a_config(tmp_path: Path, key: str) -> None:
    m = hugging_face(tmp_path)
    for value in VALUES:
        if key in ("rms_norm_eps", "rope_theta") and value in (0.5, 10**9, 2**31):
            continue  # odd, but a number
        edit_json(m / "config.json", **{key: value})
        assert str(m) in refused(m)


@pytest.mark.parametrize(
    "key", ["dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "multiple_of", "ffn_dim_multiplier"]
)
def test_numbers_of_params(tmp_path: Path, key: str) -> None:
    m = meta(tmp_path)
    for value in VALUES:
        if key != "vocab_size" or value != -1:  # as Meta's own files say that the tokenizer knows it
            edit_json(m / "params.json", **{key: value})
            assert str(m) in refused(m)


@pytest.mark.parametrize("place", range(7))
def test_numbers_of_a_header(tmp_path: Path, place: int) -> None:
    file = llama2c(tmp_path)
    values = list(struct.unpack_from("<7i", file.read_bytes()))
    for value in (2**31 - 1, -(2**31), 10**9, 0, -1, 2**20):
        changed = [*values[:place], value, *values[place + 1 :]]
        file.write_bytes(struct.pack("<7i", *changed) + file.read_bytes()[28:])
        assert str(file) in refused(file)


@pytest.mark.parametrize("key", ["r", "lora_alpha", "target_modules", "layers_to_transform", "modules_to_save"])
def test_numbers_and_lists_of_an_adapter(tmp_path: Path, key: str) -> None:
    m = peft(tmp_path)
    lists: list[Any] = [["q_proj"] * 10**5, list(range(10**5)), [10**9], [[]], [None], ["score"] * 10**5]
    for value in [*VALUES, *lists]:
        sound = {"lora_alpha": (0.5, 10**9, 2**31), "target_modules": (lists[0],), "modules_to_save": (0, {})}
        edit_json(m / "adapter_config.json", **{key: value})
        if value not in sound.get(key, ()) or value is True:
            assert str(tmp_path) in refused(m)


def test_a_shape_has_bounds() -> None:
    sizes = {"dim": 16, "layers": 2, "heads": 4, "kv_heads": 4, "hidden": 24, "vocab": 284, "context": 64}
    for name, most in MOST.items():
        for value in (0, -1, most * 2, float("nan")):
            with pytest.raises(ValueError, match=rf"^{name}: {value} is (not positive|more than)"):
                Shape(**{**sizes, name: value})


# sizes of files and of memory


def test_sizes_are_told_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"\0" * 1000)
    check_size(500, [file], tmp_path)
    with pytest.raises(BadInput, match=r"asks for 2,000 numbers, the weight files hold only 1,000 bytes"):
        check_size(2000, [file], tmp_path)
    os.truncate(file, HUGE)
    with pytest.raises(BadInput, match="they are another model's"):
        check_size(500, [file], tmp_path)
    with pytest.raises(NoRoom, match="GB of memory, this machine has"):
        check_size(HUGE // 4, [file], tmp_path)
    monkeypatch.setattr("ayni.memory.memory", lambda: 4 * 10**9)
    with pytest.raises(NoRoom, match=r"it needs 5\.0 GB of memory, this machine has 4\.0 GB"):
        need_memory(5 * 10**9, "it")


def test_a_model_to_train_has_to_fit(tmp_path: Path) -> None:
    small_tokenizer().save(tmp_path / "tokenizer")
    (tmp_path / "a.txt").write_text("the village\n")
    config = {"dim": 2**16, "layers": 1000, "heads": 512, "kv_heads": 512, "hidden": 2**18, "tokens": 0}
    inputs = {"tokenizer": tmp_path / "tokenizer", "data": [tmp_path / "a.txt"]}
    settings = parse_config(load_stage("pretrain").config, config)
    with little_memory():
        line = outcome(lambda: execute("pretrain", settings, inputs, tmp_path / "out", name="pretrain", seed=0))
    assert "parameters needs" in (line or "")
    with pytest.raises(BadInput, match=r"layers: 1000000000 is more than 1,024"):
        parse_config(load_stage("pretrain").config, config | {"layers": 10**9})
    with pytest.raises(BadInput, match=r"lora\.rank"):
        parse_config(load_stage("sft").config, {"lora": {"rank": 10**9}})


SPARSE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "safetensors": (hugging_face, "model.safetensors"),
    "bin": (pickled, "pytorch_model.bin"),
    "config.json": (hugging_face, "config.json"),
    "index": (hugging_face, "model.safetensors.index.json"),
    "pth": (meta, "consolidated.00.pth"),
    "params.json": (meta, "params.json"),
    "adapter": (peft, "adapter_model.safetensors"),
    "adapter_config.json": (peft, "adapter_config.json"),
    "ayni.json": (peft, "ayni.json"),
    "base": (peft, "../base/model.safetensors"),
}


@pytest.mark.parametrize("case", SPARSE)
def test_a_terabyte_of_nothing(tmp_path: Path, case: str) -> None:
    make, name = SPARSE[case]
    m = make(tmp_path)
    (m / name).touch()
    if case == "index":
        (m / "model.safetensors").unlink()
    os.truncate(m / name, HUGE)
    assert str(tmp_path) in refused(m)
    if make is not meta:
        # nor is it hashed as a stage's input
        with little_memory():
            assert outcome(lambda: mismatch(Input("model", "model", ("language_model",)), m)) is not None


def test_a_terabyte_of_llama2c(tmp_path: Path) -> None:
    file = llama2c(tmp_path)
    values = (2**13, 2**15, 2**10, 64, 64, 2**15, 64)
    shape = Shape(values[0], values[2], values[3], values[4], values[1], values[5], 64, tied=True)
    file.write_bytes(struct.pack("<7i", *values))
    os.truncate(file, 28 + 4 * (shape.parameters + 64 * shape.head_dim))
    assert "GB of memory" in refused(file)


@pytest.mark.parametrize("make", [hugging_face, pickled, meta, peft, llama2c], ids=lambda make: make.__name__)
def test_pipes_are_not_waited_for(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    m, refusals = make(tmp_path), 0
    for file in [*m.iterdir()] if m.is_dir() else [m]:
        whole = file.read_bytes()
        file.unlink()
        os.mkfifo(file)
        with little_memory():
            refusals += outcome(lambda name=file.name: import_model(m, tmp_path / f"out-{name}")) is not None
        file.unlink()
        file.write_bytes(whole)
    assert refusals  # a file that nobody reads may be anything


def test_a_pipe_for_a_store_of_samples(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "samples.jsonl")
    assert "is not a file" in (outcome(lambda: read_chunks(tmp_path / "samples.jsonl")) or "")


# shards


@pytest.mark.parametrize(
    "shard",
    [
        *(
            "../m2/model.safetensors",
            "/etc/passwd",
            "..",
            ".",
            "",
            "sub/model.safetensors",
            "a\0b",
            "\ud800",
            "x" * 300,
        ),
        *(3, None, ["model.safetensors"], "config.json", "nowhere.safetensors"),
    ],
)
def test_shards_are_files_beside_their_index(tmp_path: Path, shard: Any) -> None:
    m = hugging_face(tmp_path)
    (m / "model.safetensors").rename(m / "part.safetensors")
    index = {"weight_map": {"a": "part.safetensors", "b": shard}}
    (m / "model.safetensors.index.json").write_text(json.dumps(index))
    assert str(m) in refused(m)


def test_very_many_shards(tmp_path: Path) -> None:
    m = hugging_face(tmp_path)
    (m / "model.safetensors").rename(m / "part.safetensors")
    index = m / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {f"w{i}": "part.safetensors" for i in range(9999)}}))
    load_model(m)  # names do not matter, only files do
    for i in range(999):
        (m / f"{i}.safetensors").symlink_to(m / "part.safetensors")
    index.write_text(json.dumps({"weight_map": {f"w{i}": f"{i}.safetensors" for i in range(999)}}))
    assert str(m) in refused(m)


# PyTorch's files


def stretched() -> torch.Tensor:
    return torch.zeros(1).expand(10**6, 10**6)


class _Call:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def saved(value: Any, file: Path) -> None:
    torch.save(value, file)


def repacked(change: Callable[[zipfile.ZipFile, str, bytes], None]) -> Callable[[Any, Path], None]:
    """torch's archive with every entry written anew by `change`."""

    def save(value: Any, file: Path) -> None:
        whole = io.BytesIO()
        torch.save(value, whole)
        with zipfile.ZipFile(whole) as source, zipfile.ZipFile(file, "w") as target:
            for name in source.namelist():
                change(target, name, source.read(name))

    return save


def deflate(target: zipfile.ZipFile, name: str, data: bytes) -> None:
    more = b"\0" * 2**24 if name.endswith("data.pkl") else b""
    target.writestr(name, data + more, zipfile.ZIP_DEFLATED)


def large_entry(target: zipfile.ZipFile, name: str, data: bytes) -> None:
    target.writestr(name, data + (b"\0" * 2**23 if name.endswith("version") else b""))


def twice(target: zipfile.ZipFile, name: str, data: bytes) -> None:
    for _ in range(1 + name.endswith("data.pkl")):
        with warnings.catch_warnings(action="ignore"):
            target.writestr(name, data)


def tail(target: zipfile.ZipFile, name: str, data: bytes) -> None:
    target.writestr(name, data)
    target.comment = b"PK\5\6" + b"\xff" * 40


A = {"a": torch.zeros(3)}
PICKLES: dict[str, tuple[Callable[[Any, Path], None], Any, str]] = {
    "stride 0": (saved, {"a": stretched()}, "a: is 1000000×1000000, more numbers than the file holds"),
    "one row many times": (saved, {"a": torch.zeros(1, 8).expand(10**9, 8)}, "more numbers than the file holds"),
    "overlapping": (saved, {"a": torch.zeros(99).as_strided((50, 50), (1, 1))}, "more numbers than the file holds"),
    "no storage": (saved, {"a": torch.empty(10**6, 10**6, device="meta")}, "not a whole file of tensors"),
    "sparse": (saved, {"a": torch.zeros(4, 4).to_sparse()}, "not a whole file of tensors"),
    "bytearray": (saved, {"a": _Call(bytearray, 10**12)}, "bytearray is no tensor's"),
    "tensor by size": (saved, {"a": _Call(torch.Tensor, 10**6, 10**6)}, "is no tensor's"),
    "counter": (saved, {"a": _Call(__import__("collections").Counter, "ab")}, "is no tensor's"),
    "packed": (repacked(deflate), A, "is packed"),
    "large entry": (repacked(large_entry), A, "bytes long"),
    "a name twice": (repacked(twice), A, "a name stands twice"),
    "another list behind": (repacked(tail), A, "no archive that torch.save has written"),
    "old format": (lambda v, f: torch.save(v, f, _use_new_zipfile_serialization=False), A, "not a whole file"),
    "a list": (saved, [torch.zeros(3)], "expected tensors by name"),
    "nested": (saved, {"model": A}, "model: expected tensors by name"),
    "numbers for names": (saved, {3: torch.zeros(3)}, "3: expected tensors by name"),
}


@pytest.mark.parametrize("case", PICKLES)
def test_a_pickle_holds_the_tensors_it_claims(tmp_path: Path, case: str) -> None:
    save, value, says = PICKLES[case]
    save(value, tmp_path / "m.pth")
    with little_memory():
        assert says in (outcome(lambda: load_tensors(tmp_path / "m.pth")) or "")


def test_deep_pickles(tmp_path: Path) -> None:
    deep: Any = {}
    for _ in range(90):
        deep = {"a": deep}
    torch.save(deep, tmp_path / "m.pth")
    assert "expected tensors by name" in (outcome(lambda: load_tensors(tmp_path / "m.pth")) or "")


def test_what_others_save_is_read(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2).bfloat16()
    state = model.state_dict()  # an OrderedDict with _metadata
    shared = torch.arange(6.0)
    torch.save({**state, "p": torch.nn.Parameter(torch.ones(2)), "x": shared, "y": shared[2:]}, tmp_path / "a.pth")
    torch.save(state, tmp_path / "b.pth")
    assert {"weight", "bias", "p", "x", "y"} == load_tensors(tmp_path / "a.pth").keys()
    assert torch.equal(load_tensors(tmp_path / "b.pth")["weight"], model.weight)
    with open(tmp_path / "c.pth", "wb") as file:
        pickle.dump({"a": 1}, file)
    assert outcome(lambda: load_tensors(tmp_path / "c.pth")) is not None


# numbers that are none


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_nan_and_infinity_are_named(tmp_path: Path, bad: float, dtype: torch.dtype) -> None:
    m = hugging_face(tmp_path)
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(m / "model.safetensors").items()}
    tensors[Q][3, 5] = bad
    save_file(tensors, m / "model.safetensors")
    assert refused(m).endswith(f"{Q}: the weight holds NaN or infinity")
    assert "NaN or infinity" in (outcome(lambda: load_model(m)) or "")


@pytest.mark.parametrize("make", [pickled, meta, peft, llama2c], ids=lambda make: make.__name__)
def test_nan_in_every_kind(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    m = make(tmp_path)
    if make is llama2c:
        data = m.read_bytes()
        m.write_bytes(data[:400] + struct.pack("<f", float("nan")) + data[404:])
    elif make is peft:
        tensors = load_file(m / "adapter_model.safetensors")
        next(iter(tensors.values()))[0, 0] = float("nan")
        save_file(tensors, m / "adapter_model.safetensors")
    else:
        file = next(file for file in m.iterdir() if file.suffix in (".bin", ".pth"))
        state = torch.load(file, weights_only=True)
        next(iter(state.values())).view(-1)[0] = float("nan")
        torch.save(state, file)
    assert "the weight holds NaN or infinity" in refused(m)


def test_numbers_that_overflow_while_sampling_are_exit_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ayni import cli

    m = hugging_face(tmp_path)
    tensors = load_file(m / "model.safetensors")
    save_file({name: torch.full_like(tensor, 3e38) for name, tensor in tensors.items()}, m / "model.safetensors")
    assert cli.run(["generate", str(m), "--text", "the", "--max-tokens", "4", "--json"]) == 4
    assert "overflow" in json.loads(capsys.readouterr().out)["error"]


def test_an_unsealed_input_is_hashed_whole(tmp_path: Path) -> None:
    m = hugging_face(tmp_path)
    before = content_hash(m)
    data = bytearray((m / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (m / "model.safetensors").write_bytes(bytes(data))
    assert content_hash(m) != before
