"""A sound file of every format that is read from outside, for tests/mutations.py."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import yaml
from mutations import Format
from test_formats_fuzz import SEEDS

from ayni.cli.lines import read_lines
from ayni.config import parse_yaml
from ayni.errors import AyniError, BadInput
from ayni.formats.inspect import inspect_data
from ayni.formats.reading import detect, kinds_of, scan
from ayni.records import Message, Prompt
from ayni.reward import api_judge, function, post
from ayni.runs.recipe import processes_of, read_recipe
from ayni.text.tokenizer import Tokenizer, load_tokenizer, train_tokenizer

TEXT = "The village by the river: 12 mills, Ünïcode ✓ and 😀.\n\n[INST] </s> <0x0A>  two  spaces\n"


def rows(row: dict[str, Any]) -> bytes:
    return "".join(json.dumps(each) + "\n" for each in (row, row)).encode()


def read_data(path: Path) -> None:
    """Everything that is done with a file of rows: as all that it can be read as, and to look at it."""
    kinds_of(path)
    for kind in detect(path).kinds:
        with contextlib.suppress(BadInput):  # the others are read all the same
            scan(path, kind, strict=False)
    inspect_data(path, _small())
    scan(path)


def table(row: dict[str, Any]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(row))
    writer.writeheader()
    writer.writerows([row, row])
    return out.getvalue().encode()


def records() -> dict[str, Format]:
    found = {}
    for number, (name, row) in enumerate(SEEDS.items()):
        by_id = name in ("prompt", "constraint", "principle", "question")
        if number % 2 and not by_id:
            found[name] = Format(rows(row), "data.jsonl", read_data, row, rows)
        else:
            both = [row] if by_id else [row, row]
            found[name] = Format(json.dumps(both, indent=1).encode(), "data.json", read_data, both)
    row = {"id": 1, "prompt": "How?", "type": "t", "label": "safe"}
    found["xstest"] = Format(table(row), "data.csv", read_data, row, lambda value: table(dict(value)))
    found["text rows"] = Format(rows({"text": TEXT}), "data.jsonl", read_data, {"text": TEXT}, rows)
    found["markdown"] = Format(f"# Title: A\n---\n# One\n\n{TEXT}\n*a* [b](c)\n> d\n".encode(), "a.md", read_data)
    found["text"] = Format(TEXT.encode(), "a.txt", read_data)
    found["gzip"] = Format(gzip.compress(rows(SEEDS["pairs"]), mtime=0), "data.jsonl.gz", read_data)
    dialog = SEEDS["messages"]
    found["lines"] = Format(rows(dialog) + rows({"text": TEXT}), "lines.jsonl", read_lines, dialog, rows)
    return found


RECIPE = """\
name: a
seed: 1
processes: 1
seconds: {words: 1.5}
environment: {AYNI_NATIVE: "1"}
stages:
  words:
    kind: tokenizer
    data: [../text.jsonl]
    vocab_size: 300
  base: {kind: pretrain, tokenizer: words, data: ../text.jsonl, dim: 16, layers: 1, heads: 2, kv_heads: 1, context: 64,
    row_tokens: 32}
  sft:
    model: base
    data: ../dialogs.jsonl
    epochs: 1
    optimiser: {lr: 1e-4, betas: [0.9, 0.95]}
"""


def recipes() -> dict[str, Format]:
    def read(path: Path) -> None:
        (path.parent.parent / "text.jsonl").write_bytes(rows({"text": TEXT}))
        (path.parent.parent / "dialogs.jsonl").write_bytes(rows(SEEDS["messages"]))
        processes_of(path)
        read_recipe(path).resolved()

    value = parse_yaml(RECIPE)[0]
    aliases = RECIPE.replace("  sft:\n", "  sft: &s\n") + "  more:\n    <<: *s\n    kind: sft\n    epochs: 2\n"
    return {
        "recipe": Format(RECIPE.encode(), "recipe.yaml", read, value, lambda value: yaml.safe_dump(value).encode()),
        "recipe with aliases": Format(aliases.encode(), "recipe.yaml", read),
    }


_SMALL: list[Tokenizer] = []


def _small() -> Tokenizer:
    if not _SMALL:
        _SMALL.append(train_tokenizer([TEXT * 20], 300))
    return _SMALL[0]


def read_tokenizer(path: Path) -> None:
    tokenizer = load_tokenizer(path)
    try:
        ids = tokenizer.encode(TEXT)
        text = tokenizer.decode(ids)
    except BadInput:  # it cannot spell something, and says so
        return
    assert len(ids) <= 64 * len(TEXT)
    assert len(text) <= 64 * 64 * len(TEXT)
    assert tokenizer.eos not in ids
    assert max(ids, default=0) < tokenizer.vocab_size
    assert tokenizer.fingerprint
    with tempfile.TemporaryDirectory() as place:
        tokenizer.save(Path(place) / "saved")


def tokenizers() -> dict[str, Format]:
    from ayni.text.tok_bin import write_tok_bin

    found = {}
    with tempfile.TemporaryDirectory() as place:
        small = _small()
        small.save(Path(place))
        write_tok_bin(Path(place) / "tok.bin", small.codec.vocabulary)  # type: ignore[union-attr]
        for name in ("tokenizer.model", "tok.bin"):
            found[name] = Format((Path(place) / name).read_bytes(), name, read_tokenizer)
        value = json.loads((Path(place) / "tokenizer.json").read_text())
    value["truncation"] = {"direction": "Right", "max_length": 9, "strategy": "LongestFirst", "stride": 0}
    value["padding"] = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
                        "pad_type_id": 0, "pad_token": "<unk>"}  # fmt: skip
    other = {
        **value,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFKC"}, {"type": "Lowercase"}, {"type": "Strip", "strip_left": True, "strip_right": True},
            {"type": "Replace", "pattern": {"Regex": " +"}, "content": "▁"},
            {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
             "lowercase": True}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "\\d+"}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
            {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True},
            {"type": "Punctuation", "behavior": "Contiguous"}, {"type": "Digits", "individual_digits": True}]},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True},
            {"type": "WordPiece", "prefix": "##", "cleanup": True}, {"type": "BPEDecoder", "suffix": "</w>"},
            {"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": True}]},
    }  # fmt: skip
    pieces = ["<unk>", "<s>", "</s>", "a", "b", "▁the", "▁"]
    models = {
        "bpe": {**value["model"], "vocab": {piece: n for n, piece in enumerate([*pieces, "ab"])},
                "merges": [["a", "b"]], "byte_fallback": False},
        "unigram": {"type": "Unigram", "unk_id": 0, "vocab": [[piece, -n] for n, piece in enumerate(pieces)],
                    "byte_fallback": False},
        "wordlevel": {"type": "WordLevel", "vocab": {piece: n for n, piece in enumerate(pieces)}, "unk_token": "<unk>"},
        "wordpiece": {"type": "WordPiece", "vocab": {piece: n for n, piece in enumerate(pieces)}, "unk_token": "<unk>",
                      "continuing_subword_prefix": "##", "max_input_chars_per_word": 100},
    }  # fmt: skip
    for kind, model in models.items():
        for which, whole in (("", value), (" with other parts", other)):
            whole = {**whole, "model": model}
            found[f"{kind}{which}"] = Format(json.dumps(whole).encode(), "tokenizer.json", read_tokenizer, whole)
    return found


class Told(post.Endpoint):
    """An endpoint that replies with what lies in a file."""

    path: Path

    def send(self, url: str, body: Any = None) -> bytes:
        return Told.path.read_bytes()


def endpoints() -> dict[str, Format]:
    api_judge.Endpoint = function.Endpoint = Told  # type: ignore[misc]
    prompt = Prompt("p", (Message("user", "a"),))

    def judge(path: Path) -> None:
        Told.path = path
        try:
            api_judge.ApiJudge("http://x/v1", "m")(prompt, "b", "c")
        except BadInput:
            raise
        except AyniError as error:  # it says something else than a verdict
            raise BadInput(str(error)) from None

    def models(path: Path) -> None:
        Told.path = path
        assert isinstance(api_judge.served_model("http://x/v1"), str)

    def reward(path: Path) -> None:
        Told.path = path
        function.load_function("http://x/score").score_answers([prompt] * 2, ["b", "c"])

    def memory(path: Path) -> None:
        api_judge.ApiJudge("http://x/v1", "m", path)

    said = {
        "id": "x",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Verdict: A"}}],
        "usage": {},
    }
    kept = {"prompt": "p", "asked": "x", "nth": 0, "verdict": 1.0}
    return {
        name: Format(json.dumps(value).encode() + b"\n", f"{name}.jsonl", read, value)
        for name, value, read in (
            ("judge", said, judge),
            ("models", {"data": [{"id": "m"}]}, models),
            ("reward", {"scores": [1, 2.5]}, reward),
            ("memory", kept, memory),
        )
    }


FAMILIES = {"records": records, "recipes": recipes, "tokenizers": tokenizers, "endpoints": endpoints}
