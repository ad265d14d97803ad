"""The formats of others: Meta's shards and llama2.c's files, in and out, whole or refused in one line."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from faults import limited
from small_models import build, edit_json, refused, same, small_tokenizer, truncate

from ayni.conversion import export_model, import_model
from ayni.errors import NoRoom
from ayni.model.llama2c import read_llama2c, write_llama2c
from ayni.model.meta import ffn_settings, params_of, read_meta, write_meta
from ayni.model.score_head import with_score_head
from ayni.model.shape import SHAPES, ffn_hidden
from ayni.model_directory import load_model, read_extra, save_model
from ayni.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return small_tokenizer()


@pytest.fixture
def directory(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    save_model(tmp_path / "model", build(), tokenizer)
    return tmp_path / "model"


# --- Meta


@pytest.mark.parametrize("shards", [1, 2, 4])
@pytest.mark.parametrize("change", [{}, {"hidden": 48, "norm_eps": 1e-6, "theta": 1e6}], ids=["plain", "other"])
def test_meta_shards_go_out_and_come_back(
    tmp_path: Path, tokenizer: Tokenizer, shards: int, change: dict[str, Any]
) -> None:
    model = build(**change)
    save_model(tmp_path / "model", model, tokenizer)
    export_model(tmp_path / "model", tmp_path / "meta", "meta", shards=shards)
    files = sorted((tmp_path / "meta").glob("*.pth"))
    assert [file.name for file in files] == [f"consolidated.{i:02d}.pth" for i in range(shards)]
    part = torch.load(files[-1], weights_only=True)
    assert part["tok_embeddings.weight"].shape == (284, 16 // shards)
    assert part["output.weight"].shape == (284 // shards, 16)
    assert part["layers.0.attention.wo.weight"].shape == (16, 16 // shards)
    assert part["layers.0.ffn_norm.weight"].shape == (16,)
    import_model(tmp_path / "meta", tmp_path / "back")
    loaded, its_tokenizer = load_model(tmp_path / "back")
    assert same(loaded, model)
    assert its_tokenizer.fingerprint == tokenizer.fingerprint


def test_meta_has_no_tied_models_so_the_head_is_written_out(tmp_path: Path) -> None:
    model = build(tied=True)
    write_meta(tmp_path, model)
    back = read_meta(tmp_path, context=64)
    assert back.shape == replace(model.shape, tied=False)
    assert torch.equal(back.head, model.head)


def test_metas_own_files_leave_the_vocabulary_to_the_tensor(tmp_path: Path, tokenizer: Tokenizer) -> None:
    source = tmp_path / "llama" / "7b"
    source.mkdir(parents=True)
    model = build(context=4096).bfloat16()  # what the format cannot say is taken for the paper's
    write_meta(source, model, shards=2)
    edit_json(source / "params.json", vocab_size=-1)
    params = json.loads((source / "params.json").read_text())
    del params["n_kv_heads"]  # files older than grouped queries
    (source / "params.json").write_text(json.dumps(params))
    for file in source.glob("*.pth"):
        torch.save(torch.load(file, weights_only=True) | {"rope.freqs": torch.ones(2)}, file)
    assert "no tokenizer.model" in refused(lambda: import_model(source, tmp_path / "out"))
    tokenizer.save(tmp_path / "llama")  # Meta keeps it one level up
    import_model(source, tmp_path / "out")
    assert same(load_model(tmp_path / "out", dtype=None)[0], model)


@pytest.mark.parametrize("name", SHAPES)
def test_params_of_the_papers_models(name: str) -> None:
    params = params_of(SHAPES[name])
    multiple_of, multiplier = (4096, 1.3) if name == "70B" else (256, None)
    assert (params["multiple_of"], params.get("ffn_dim_multiplier")) == (multiple_of, multiplier)
    assert params["vocab_size"] == 32000


@pytest.mark.parametrize(("dim", "hidden"), [(64, 172), (16, 24), (160, 7), (160, 1009), (8192, 28673)])
def test_any_hidden_size_can_be_said_in_params(dim: int, hidden: int) -> None:
    assert ffn_hidden(dim, *ffn_settings(dim, hidden)) == hidden


def edit_shard(directory: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    part = torch.load(directory / "consolidated.01.pth", weights_only=True)
    change(part)
    torch.save(part, directory / "consolidated.01.pth")


W3 = "layers.0.feed_forward.w3.weight"
BROKEN_META: dict[str, tuple[Callable[[Path], object], str]] = {
    "shard missing": (lambda d: (d / "consolidated.00.pth").unlink(), "found consolidated.01.pth"),
    "no shards": (lambda d: [file.unlink() for file in d.glob("*.pth")], "found none"),
    "weight of one shard": (lambda d: edit_shard(d, lambda part: part.pop(W3)), f"{W3}: only some shards"),
    "sizes differ": (lambda d: edit_shard(d, lambda part: part.update({W3: torch.ones(7, 16)})), "its shards differ"),
    "truncated shard": (truncate("consolidated.01.pth", 0.7), "consolidated.01.pth: not a whole file of tensors"),
    "unknown parameter": (lambda d: edit_json(d / "params.json", n_experts=8), "n_experts: unknown parameter"),
    "scaled rope": (lambda d: edit_json(d / "params.json", use_scaled_rope=True), "use_scaled_rope"),
    "wrong type": (lambda d: edit_json(d / "params.json", dim="16"), 'dim: "16" is not a whole number'),
    "zero": (lambda d: edit_json(d / "params.json", n_layers=0), "layers: 0 is not positive"),
    "zero width": (lambda d: edit_json(d / "params.json", multiple_of=0), "must be positive"),
    "missing": (lambda d: edit_json(d / "params.json", n_heads=None), "n_heads: missing"),
    "other width": (lambda d: edit_json(d / "params.json", multiple_of=256), "the configuration says 256×16"),
    "layer too many": (lambda d: edit_json(d / "params.json", n_layers=3), "layers.2.attention.wq.weight: the weight"),
    "params truncated": (truncate("params.json", 0.5), "params.json:"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN_META)
def test_a_broken_meta_directory_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    write_meta(tmp_path, build(), shards=2)
    read_meta(tmp_path)
    breaks, says = BROKEN_META[case]
    breaks(tmp_path)
    assert says in refused(lambda: read_meta(tmp_path))


def test_shards_that_do_not_divide_are_refused(directory: Path, tmp_path: Path) -> None:
    for shards, says in ((3, "does not divide by 3"), (8, "heads (4) does not divide by 8"), (9, "from 1 to 8")):
        line = refused(lambda n=shards: export_model(directory, tmp_path / "meta", "meta", shards=n))
        assert says in line
    assert "only the meta format has shards" in refused(
        lambda: export_model(directory, tmp_path / "out", "hf", shards=2)
    )
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


# --- llama2.c


@pytest.mark.parametrize("tied", [True, False])
def test_llama2c_files_go_out_and_come_back(tmp_path: Path, tokenizer: Tokenizer, tied: bool) -> None:
    model = build(tied=tied, kv_heads=2)
    save_model(tmp_path / "model", model, tokenizer)
    export_model(tmp_path / "model", tmp_path / "out" / "m.bin", "llama2c")
    data = (tmp_path / "out" / "m.bin").read_bytes()
    assert struct.unpack_from("<7i", data) == (16, 24, 2, 4, 2, 284 if tied else -284, 64)
    assert len(data) == 28 + 4 * (model.shape.parameters + 64 * 4)
    import_model(tmp_path / "out" / "m.bin", tmp_path / "back")
    loaded, its_tokenizer = load_model(tmp_path / "back")
    assert same(loaded, model)
    text = "the baker's 12 中"
    assert its_tokenizer.encode(text) == tokenizer.encode(text)
    write_llama2c(tmp_path / "again.bin", loaded)
    assert (tmp_path / "again.bin").read_bytes() == data


def header(*values: int) -> Callable[[Path], object]:
    return lambda file: file.write_bytes(struct.pack("<7i", *values) + file.read_bytes()[28:])


BROKEN_BIN: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (lambda f: os.truncate(f, f.stat().st_size - 4), "but its header says"),
    "longer": (lambda f: f.write_bytes(f.read_bytes() + b"\0"), "but its header says"),
    "no header": (lambda f: os.truncate(f, 20), "shorter than its header"),
    "empty": (lambda f: os.truncate(f, 0), "shorter than its header"),
    "version 1": (header(0x616B3432, 1, 0, 0, 0, 0, 0), "llama2.c version 1 is not supported"),
    "zero heads": (header(16, 24, 2, 0, 2, 284, 64), "not a llama2.c model (heads: 0"),
    "absurd": (header(2**30, 2**30, 2**30, 4, 2, 2**30, 64), "dim: 1073741824 is more than"),
    "not a model": (lambda f: f.write_bytes(b"GGUF" * 100), "not a llama2.c model"),
    "other rotation": (
        lambda f: f.write_bytes(f.read_bytes()[: -4 * 64 * 4] + b"\0" * (4 * 64 * 4)),
        "rotary tables",
    ),
}


@pytest.mark.parametrize("case", BROKEN_BIN)
def test_a_broken_bin_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    file = tmp_path / "m.bin"
    write_llama2c(file, build(tied=True))
    read_llama2c(file)
    breaks, says = BROKEN_BIN[case]
    breaks(file)
    line = refused(lambda: read_llama2c(file))
    assert says in line
    assert str(file) in line
    assert "m.bin" in refused(lambda: import_model(file, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_what_llama2c_cannot_hold_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    cases = (
        (build(norm_eps=1e-6), "norm_eps"),
        (build(theta=1e6), "built in"),
        (build(head="score"), "a reward model has no llama2.c format"),
        (build(vocab=300), "one piece per embedding row: 284 and 300"),
    )
    for model, says in cases:
        save_model(tmp_path / "model", model, tokenizer)
        for out in (tmp_path / "out", tmp_path / "new" / "out.bin"):
            assert says in refused(lambda out=out: export_model(tmp_path / "model", out, "llama2c"))
            assert not out.exists()
    assert not list(tmp_path.rglob("tok.bin"))
    save_model(tmp_path / "model", build(), tokenizer)
    line = refused(lambda: export_model(tmp_path / "model", tmp_path / "tok.bin", "llama2c"))
    assert "that is the tokenizer's name" in line


# --- import and export


def test_import_keeps_dtype_and_extra(tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = with_score_head(build(), seed=0).bfloat16()
    save_model(tmp_path / "rm", model, tokenizer, extra={"normalisation": {"mean": 1.0, "std": 2.0}})
    import_model(tmp_path / "rm", tmp_path / "in")
    export_model(tmp_path / "in", tmp_path / "out", "hf")
    for directory in (tmp_path / "in", tmp_path / "out"):
        assert same(load_model(directory, dtype=None)[0], model)
        assert read_extra(directory) == {"normalisation": {"mean": 1.0, "std": 2.0}}
    assert "a reward model has no Meta format" in refused(
        lambda: export_model(tmp_path / "rm", tmp_path / "meta", "meta")
    )
    assert not (tmp_path / "meta").exists()


@pytest.mark.parametrize("format", ["hf", "meta", "llama2c"])
def test_a_model_for_which_there_is_no_room_is_whole_or_absent(format: str, directory: Path, tmp_path: Path) -> None:
    """A limit on the size of a file, higher and higher: torch, safetensors and we ourselves meet it in many places."""
    for size in (0, 100, 2_000, 5_000, 10_000, 20_000):
        with limited(size), pytest.raises(NoRoom, match="the file would be larger than this system allows"):
            export_model(directory, tmp_path / "out", format)
        assert list(tmp_path.iterdir()) == [directory]
    export_model(directory, tmp_path / "out", format)


def test_nothing_is_overwritten(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "tok.bin").write_text("mine")
    for out in (tmp_path / "notes", directory):
        assert "exists already" in refused(lambda out=out: import_model(directory, out))
        assert "exists already" in refused(lambda out=out: export_model(directory, out, "meta"))
    assert "exists already" in refused(lambda: export_model(directory, tmp_path / "notes" / "m.bin", "llama2c"))
    assert [file.name for file in (tmp_path / "notes").iterdir()] == ["tok.bin"]
    (tmp_path / "empty").mkdir()
    import_model(directory, tmp_path / "empty")
    assert same(load_model(tmp_path / "empty")[0], load_model(directory)[0])


def test_bad_sources_and_formats(directory: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    (tmp_path / "readme.txt").write_text("hello")
    assert "no such file or directory" in refused(lambda: import_model(tmp_path / "nowhere", out))
    for odd in ("empty", "readme.txt"):
        assert "not a model" in refused(lambda odd=odd: import_model(tmp_path / odd, out))
    write_llama2c(tmp_path / "m.bin", build(vocab=300, tied=True))
    assert "no tokenizer beside it" in refused(lambda: import_model(tmp_path / "m.bin", out))
    tokenizer.save(tmp_path / "tokenizer")
    line = refused(lambda: import_model(tmp_path / "m.bin", out, tmp_path / "tokenizer"))
    assert "mismatched tokenizer: 284 ids, but the model has 300" in line
    assert "'gguf' is not one of hf, meta, llama2c" in refused(lambda: export_model(directory, out, "gguf"))
    export_model(directory, tmp_path / "meta", "meta")
    edit_json(tmp_path / "meta" / "ayni.json", context="64")
    assert 'context: "64" is not a whole number' in refused(lambda: import_model(tmp_path / "meta", out))
    assert not out.exists()
