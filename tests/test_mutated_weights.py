"""Models of four kinds, checkpoints, seals and stores of samples with anything wrong in them: sound, or one line."""

from __future__ import annotations

import io
import json
import shutil
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from mutated import bounded, json_of, outcome, write
from mutations import MUTATIONS, Draw, broken_bytes
from small_models import build, small_tokenizer
from tiny import prompts

from ayni.cli.diagnosis import diagnose
from ayni.conversion import read_model
from ayni.files import sha256_of, write_json
from ayni.model.adapters import Lora, with_adapter
from ayni.model.llama2c import write_llama2c
from ayni.model.meta import write_meta
from ayni.model_directory import load_model, save_model
from ayni.records import Sample, to_dict
from ayni.rollout.store import draw_all, read_chunks
from ayni.run import Run
from ayni.runs.lineage import made_by
from ayni.runs.reading import read_run
from ayni.runs.sealing import content_hash, read_seal, seal_directory
from ayni.train.checkpoint import Checkpoints, read_checkpoint, save_checkpoint

Break = Callable[[Draw], None]
Broken = tuple[Callable[[], object], dict[str, Break]]


def header_of(data: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack_from("<Q", data)
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(text: str, body: bytes) -> bytes:
    head = text.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(head)) + head + body


def safetensors(file: Path) -> dict[str, Break]:
    whole = file.read_bytes()
    header, body = header_of(whole)
    return {
        f"{file.name} bytes": lambda draw: write(file, broken_bytes(whole, draw)),
        f"{file.name} header": lambda draw: write(file, with_header(json_of(header, draw), body)),
    }


def settings(file: Path) -> dict[str, Break]:
    value = json.loads(file.read_text())
    return {file.name: lambda draw: write(file, json_of(value, draw))}


def archive(file: Path) -> dict[str, Break]:
    """Bytes of the file, and of the pickle inside with the archive whole around it."""
    whole = file.read_bytes()
    with zipfile.ZipFile(io.BytesIO(whole)) as source:
        entries = [(name, source.read(name)) for name in source.namelist()]

    def repack(draw: Draw) -> None:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as target:
            for name, data in entries:
                target.writestr(name, broken_bytes(data, draw) if name.endswith("data.pkl") else data)
        write(file, out.getvalue())

    return {f"{file.name} bytes": lambda draw: write(file, broken_bytes(whole, draw)), f"{file.name} pickle": repack}


def hugging_face(place: Path) -> Broken:
    save_model(place / "m", build(kv_heads=2), small_tokenizer())
    m = place / "m"
    return lambda: load_model(m), {**safetensors(m / "model.safetensors"), **settings(m / "config.json")}


def hugging_face_pickled(place: Path) -> Broken:
    load, _ = hugging_face(place)
    m = place / "m"
    tensors = {name: tensor.clone() for name, tensor in _tensors(m / "model.safetensors").items()}
    (m / "model.safetensors").unlink()
    parts = dict(list(tensors.items())[:5]), dict(list(tensors.items())[5:])
    names = [f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2)]
    for name, part in zip(names, parts, strict=True):
        torch.save(part, m / name)
    weight_map = {name: file for file, part in zip(names, parts, strict=True) for name in part}
    write_json(m / "pytorch_model.bin.index.json", {"metadata": {}, "weight_map": weight_map})
    return load, {**archive(m / names[0]), **settings(m / "pytorch_model.bin.index.json")}


def _tensors(file: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(file)


def meta(place: Path) -> Broken:
    m = place / "meta"
    m.mkdir()
    write_meta(m, build(), shards=2)
    small_tokenizer().save(m)
    return lambda: read_model(m), {**archive(m / "consolidated.01.pth"), **settings(m / "params.json")}


def llama2c(place: Path) -> Broken:
    write_llama2c(place / "m.bin", build(tied=True))
    small_tokenizer().save(place / "tokenizer")
    whole = (place / "m.bin").read_bytes()
    sizes = [0, 1, -1, 2, 3, 16, 2**16, 2**31 - 1, -(2**31)]

    def header(draw: Draw) -> None:
        values = list(struct.unpack_from("<7i", whole))
        for _ in range(draw.randrange(1, 4)):
            values[draw.randrange(7)] = draw.choice(sizes)
        write(place / "m.bin", struct.pack("<7i", *values) + whole[28:])

    breaks = {"bytes": lambda draw: write(place / "m.bin", broken_bytes(whole, draw)), "header": header}
    return lambda: read_model(place / "m.bin", place / "tokenizer"), breaks


def peft(place: Path) -> Broken:
    save_model(place / "base", build(), small_tokenizer())
    model = with_adapter(load_model(place / "base")[0], Lora(rank=2, alpha=4), seed=0)
    save_model(place / "m", model, small_tokenizer())
    m = place / "m"
    breaks = {**safetensors(m / "adapter_model.safetensors"), **settings(m / "adapter_config.json")}
    return lambda: load_model(m), {**breaks, **settings(m / "ayni.json")}


def checkpoints(place: Path) -> Broken:
    for step in (5, 10):
        tensors = {"model.w": torch.ones(3, 4), "adam.step.w": torch.tensor(1.0)}
        save_checkpoint(place / "checkpoints", step, tensors, {"step": step, "actor.step": 3, "memory": {"a": 0.5}})
    newest = place / "checkpoints" / "step-00000010"

    def state(step: int, tensors: dict[str, torch.Tensor], numbers: dict[str, Any]) -> None:
        torch.empty(3, 4).copy_(tensors["model.w"])
        int(numbers["actor.step"])

    def load() -> None:
        with Checkpoints(Run(place, name="r"), 1) as found:
            assert found.resume(state) in (5, 10)
        read_checkpoint(newest)

    def hashed(change: Break) -> Break:
        """As an attacker would: the hash fits what was changed."""

        def both(draw: Draw) -> None:
            change(draw)
            (newest / "sha256").write_text(sha256_of(newest, keep=lambda file: file.name != "sha256"))

        return both

    breaks = {**safetensors(newest / "state.safetensors"), **settings(newest / "numbers.json")}
    whole = (newest / "sha256").read_bytes()
    breaks |= {f"{name}, hashed": hashed(change) for name, change in breaks.items()}
    return load, {**breaks, "sha256": lambda draw: write(newest / "sha256", broken_bytes(whole, draw))}


def seals(place: Path) -> Broken:
    stage = place / "stages" / "01-make-00000000"
    stage.mkdir(parents=True)
    (stage / "records.jsonl").write_text("{}\n")
    read = [{"path": str(stage / "records.jsonl"), "sha256": "0" * 64}]
    write_json(stage / "inputs.json", {"hash": "", "kind": "sft", "version": 1, "seed": 0, "inputs": {"data": read}})
    row = {"metric": "accuracy", "value": 0.5, "n": 3}
    write_json(stage / "results.json", {"schema": 1, "results": [row]})
    seal_directory(stage, seconds=1.5, hash="0" * 64, kind="sft", version=1, config={}, seed=0)
    entry = {"name": "make", "kind": "sft", "directory": str(stage.relative_to(place)), "hash": "0", "state": "ran"}
    entry |= {"seconds": 1.0, "inputs": {"data": ["a.jsonl"]}}
    write_json(place / "status.json", {"run": "r", "status": "done", "stages": [entry]})
    write_json(place / "results.json", {"schema": 1, "results": [row]})

    def load() -> None:
        read_seal(stage)
        content_hash(stage / "records.jsonl")
        made_by(place)
        read_run(place)
        diagnose(str(place), True)

    files = ("status.json", "results.json", f"stages/{stage.name}/DONE.json", f"stages/{stage.name}/inputs.json")
    breaks: dict[str, Break] = {}
    for name in files:
        breaks |= {f"{name} {kind}": each for kind, each in settings(place / name).items()}
    return load, breaks


def samples(place: Path) -> Broken:
    asked = prompts(4)
    sample = Sample("", "helpfulness", (1, 2), (5, 6, 2), (-0.5, -1.0, -0.1), "owl", "stop", "m", scores={"a": 1.0})
    groups = [[replace(sample, prompt_id=prompt.id)] * 2 for prompt in asked]
    lines = [[[to_dict(s) for s in group] for group in groups[i : i + 2]] for i in (0, 2)]
    store = place / "samples.jsonl"

    def structural(draw: Draw) -> None:
        write(store, json_of(lines[0], draw) + "\n" + json.dumps(lines[1]) + "\n")

    def load() -> None:
        read_chunks(store)
        copy = place.parent / f"{place.name}-copy.jsonl"  # a store that goes on may lose its last line, if it is torn
        shutil.copy(store, copy)
        by_id = {group[0].prompt_id: group for group in groups}
        found = draw_all(copy, asked, lambda p: [by_id[x.id] for x in p], chunk=2, progress=lambda done, total: None)
        assert len(found) == 4

    write(store, "".join(json.dumps(line) + "\n" for line in lines))
    whole = store.read_bytes()
    return load, {"bytes": lambda draw: write(store, broken_bytes(whole, draw)), "structure": structural}


FORMATS = [hugging_face, hugging_face_pickled, meta, llama2c, peft, checkpoints, seals, samples]


@pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.__name__)
def test_anything_wrong_is_one_line(format: Callable[[Path], Broken], tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    load, breaks = format(place)
    load()
    files = {file: file.read_bytes() for file in place.rglob("*") if file.is_file()}
    refusals = 0
    for number in range(MUTATIONS):
        draw = Draw(f"{format.__name__} {number}")
        name = sorted(breaks)[number % len(breaks)]
        breaks[name](draw)
        with bounded(place):
            try:
                refusals += outcome(load) is not None
            except Exception as error:
                error.add_note(f"{name}, number {number}")
                raise
        for file, content in files.items():
            if file.read_bytes() != content:
                write(file, content)
    assert refusals > MUTATIONS // 8
