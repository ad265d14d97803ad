"""Files that were made to break something: endless, too large, too deep, of a shape nobody expects.

The minimal failures that tests/mutations.py found stand here too.
"""

from __future__ import annotations

import gzip
import json
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bad_input_cases import _SPECIAL, OASST, OURS, PAIR, PANDA, PROMPT, Case, Maker, array, lines, raw, tok_bin, turns


def in_one_line(*values: Any) -> Maker:
    return raw("data.json", json.dumps(list(values)))


def huge(name: str, size: int = 1 << 40) -> Maker:
    """A file of holes."""

    def make(folder: Path) -> Path:
        with open(folder / name, "wb") as file:
            file.truncate(size)
        return folder / name

    return make


def pipe(name: str) -> Maker:
    def make(folder: Path) -> Path:
        os.mkfifo(folder / name)
        return folder / name

    return make


def bomb(name: str, part: bytes) -> Maker:
    return raw(name, gzip.compress(part * ((1 << 22) // len(part)), mtime=0) * 300)


def with_key(row: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    return {**row, key: value}


ARGILLA = {"fields": {"prompt": "a", "response1": "b", "response2": "c"}, "responses": []}
STUDIO = {"id": 1, "data": {"prompt": "a", "answer1": "b", "answer2": "c"}, "annotations": []}
MIN = {
    "prompt": "a",
    "answer1": "b",
    "answer2": "c",
    "annotation_id": 1,
    "annotator": 1,
    "pairwise": {"selected": "left"},
}
RATED = {"prompt": "a", "response": "b", "score": 3}
EDIT = {"prompt": "a", "original": "b", "edited": "c"}
JUDGED = {"prompt": PROMPT, "response": "b", "score": 1.0}
XSTEST = "id,prompt,type,label\n"
RANKED = {"role": "assistant", "text": "a", "rank": 1}


def studio(**annotation: Any) -> Maker:
    return array({**STUDIO, "annotations": [annotation]})


def argilla(value: Any, **more: Any) -> Maker:
    return array({**ARGILLA, "responses": [{"user_id": "u", "status": "submitted", "values": value, **more}]})


LIMITS = [
    *(Case(f"a pipe as {name}", pipe(name), reader, "PATH: is a pipe or a device")
      for name, reader in (("d.jsonl", "demonstrations"), ("d.json", "comparisons"), ("d.csv", "prompts"),
                           ("d.md", "texts"), ("tokenizer.model", "tokenizer"), ("tok.bin", "tokenizer"),
                           ("tokenizer.json", "tokenizer"))),
    *(Case(f"a file of holes as {name}", huge(name), reader, "PATH: 1T bytes are more than the ")
      for name, reader in (("d.jsonl", "comparisons"), ("d.json", "prompts"), ("d.txt", "texts"),
                           ("tokenizer.model", "tokenizer"), ("tok.bin", "tokenizer"))),
    Case("holes in one line", huge("d.jsonl", 40 << 20), "demonstrations", "PATH:1: longer than the 16M characters"),
    Case("holes in a list", huge("d.json", 40 << 20), "demonstrations", "PATH:1: longer"),
    *(Case(f"a gzip bomb of {name}", bomb("d.jsonl.gz", part), "texts", "PATH: unpacks to more than ")
      for name, part in (("lines", b"\n"), ("letters", b"a"), ("rows", b'{"text":"a"}\n'))),
    Case("a line that never ends", raw("d.jsonl", '{"text": "' + "a" * (17 << 20)), "texts", "PATH:1: longer than"),
    Case("an element that never ends", raw("d.json", '[{"text": "' + "a" * (17 << 20)), "prompts",
         "PATH:1: longer than"),
    Case("too many keys", lines({str(n): 1 for n in range(1001)}), "prompts", "PATH:1: an object with 1001 keys"),
    Case("too many columns", raw("d.csv", ",".join(map(str, range(1001))) + "\n"), "prompts", "PATH:1: 1001 columns"),
    Case("a long CSV field", raw("d.csv", f"{XSTEST}1,{'a' * 200_000},t,safe\n"), "prompts", "PATH:2: not CSV: field"),
    Case("a long integer", raw("d.jsonl", '{"prompt": ' + "9" * 5000 + "}"), "prompts", "PATH:1: Exceeds the limit"),
    Case("a long integer in a list", raw("d.json", '[{"prompt": ' + "9" * 5000 + "}]"), "prompts", "PATH:1: Exceeds"),
    Case("deep nesting in a list", raw("d.json", '[{"a": ' + "[" * 9000), "prompts", "PATH:1: nested too deep"),
    Case("deep objects", raw("d.jsonl", '{"a":' * 9000), "prompts", "PATH:1: nested too deep"),
    Case("an endless role", lines({"messages": [{"role": "x" * 5000, "content": "a"}]}), "prompts",
         "(5040 characters)"),
    Case("a gzip bomb in a tail", raw("d.jsonl.gz", gzip.compress(b"\n", mtime=0) * 9), "texts",
         "PATH:1: the file is e"),
    Case("garbage after gzip", raw("d.jsonl.gz", gzip.compress(b"{}") + b"x"), "prompts", "PATH: cannot be read"),
    Case("gzip with a wrong checksum", raw("d.jsonl.gz", gzip.compress(b"{}")[:-8] + bytes(8)), "prompts",
         "PATH: cannot"),
    Case("only a byte order mark", raw("d.jsonl", b"\xef\xbb\xbf"), "prompts", "PATH:1: the file is empty"),
    Case("only a byte order mark, CSV", raw("d.csv", b"\xef\xbb\xbf\n"), "prompts", "PATH:1: the file is empty"),
    Case("a surrogate in UTF-8", raw("d.jsonl", b'{"prompt": "\xed\xa0\x80"}'), "prompts", "PATH:1: byte 0xed"),
    Case("an overlong letter", raw("d.jsonl", b'{"prompt": "\xc0\xaf"}'), "prompts", "PATH:1: byte 0xc0"),
    Case("half a letter at the end", raw("d.txt", "é".encode()[:1]), "texts", "PATH:1: byte 0xc3"),
    Case("a NUL in JSON", raw("d.jsonl", '{"prompt": "\0"}'), "prompts", "PATH:1: not JSON: Invalid control character"),
    Case("a tab in JSON", raw("d.json", '[{"prompt": "\t"}]'), "prompts",
         "PATH:1: not JSON: Invalid control character"),
    Case("Infinity", raw("d.jsonl", '{"prompt": Infinity}'), "prompts", "PATH:1: Infinity is not JSON"),
    Case("single quotes", raw("d.jsonl", "{'prompt': 'a'}"), "prompts", "PATH:1: not JSON: Expecting property name"),
    Case("a comment in JSON", raw("d.json", '[{"prompt": "a"} // b\n]'), "prompts", "PATH:1: not JSON"),
    Case("a lone escape", raw("d.jsonl", '{"prompt": "\\x"}'), "prompts", "PATH:1: not JSON: Invalid \\escape"),
    Case("two objects in a line", raw("d.jsonl", "{} {}"), "prompts", "PATH:1: not JSON: Extra data"),
    Case("two objects in a file", raw("d.json", "{}\n{}"), "prompts", "PATH:2: not JSON: Extra data"),
    Case("a list of lists", in_one_line({"prompt": "a"}, []), "prompts", "PATH:1: a row must be an object, not list"),
    Case("a row of null", raw("d.jsonl", "null"), "prompts", "PATH:1: a row must be an object, not NoneType"),
    Case("a row of nothing", lines({}), "prompts", "PATH:1: no known format has the keys (none)"),
]  # fmt: skip
SHAPES = [
    Case("Label Studio: data a list", array({**STUDIO, "data": []}), "comparisons", "PATH:2: no known format"),
    Case("Label Studio: annotations no list", array({**STUDIO, "annotations": 3}), "comparisons",
         "annotations: expected"),
    Case("Label Studio: annotation no object", array({**STUDIO, "annotations": [3]}), "comparisons",
         "annotations.0: exp"),
    Case("Label Studio: without a result", studio(id=1), "comparisons",
         "PATH:2: annotations.0: expected an annotation"),
    Case("Label Studio: two choices", studio(result=[{"type": "pairwise", "from_name": n} for n in "ab"]),
         "comparisons",
         "PATH:2: annotations.0.result: several choices in one annotation: a, b"),
    Case("Label Studio: an unknown side", studio(result=[{"type": "pairwise", "value": {"selected": "up"}}]),
         "comparisons", "PATH:2: selected: 'up' is not one of left, right"),
    Case("Label Studio: not annotated", array(STUDIO), "comparisons",
         "PATH: holds no comparisons (left out: 1 × not ann"),
    Case("Label Studio MIN: an unknown side", array({**MIN, "pairwise": {"selected": 3}}), "comparisons",
         "selected: 3 is"),
    Case("Label Studio MIN: no answers", array({"annotation_id": 1, "annotator": 1, "c": {"selected": "left"}}),
         "comparisons", "PATH:2: which fields are the two answers?"),
    Case("Argilla: values a list", argilla([1]), "comparisons", "PATH:2: responses.0.values: expected an object"),
    Case("Argilla: response no object", array({**ARGILLA, "responses": [3]}), "comparisons",
         "responses.0: expected an o"),
    Case("Argilla: a draft", argilla({}, status="draft"), "comparisons", "left out: 1 × a response that is draft"),
    Case("Argilla: two rankings", argilla({n: {"value": ["response1", "response2"]} for n in "ab"}), "comparisons",
         "PATH:2: responses: several questions say which answer is better: a, b"),
    Case("Argilla: an endless ranking", argilla({"a": {"value": ["response1", "response2"] * 99}}), "comparisons",
         "PATH:2: responses: more than 100 answers in one order"),
    Case("a tree with endless answers", lines({"message_tree_id": "t", "prompt": {"role": "prompter", "text": "a",
         "replies": [RANKED] * 101}}), "comparisons", "PATH:1: prompt.replies: more than 100 ranked answers"),
    Case("a tree with a list for a text", lines({"message_tree_id": "t", "prompt": {"role": "prompter", "text": []}}),
         "comparisons", "PATH:1: prompt.text: expected text, found list"),
    Case("a tree with replies that are none", lines({"message_tree_id": "t", "prompt": {**OASST["prompt"],
         "replies": 3}}), "comparisons", "PATH:1: prompt.replies: expected a list"),
    Case("a rating beyond floats", lines({**RATED, "score": 10**400}), "comparisons", "PATH:1: score: 1000"),
    Case("an infinite rating", raw("d.jsonl", json.dumps(RATED).replace("3}", "1e999}")), "comparisons",
         "score: inf is"),
    Case("a rating of words", lines({**RATED, "score": "superb"}), "comparisons", "PATH:1: score: 'superb' is neither"),
    Case("a rating in a list", lines({**RATED, "score": [3]}), "comparisons", "PATH:1: score: [3] is neither"),
    Case("a rated list of answers", lines({**RATED, "response": [3]}), "comparisons",
         "PATH:1: response.0: expected an o"),
    Case("an edit of nothing", lines({**EDIT, "edited": None}), "comparisons",
         "PATH:1: edited: expected text, found null"),
    Case("an edit that changed nothing", lines({**EDIT, "edited": "b "}), "comparisons",
         "1 × the edit changed nothing"),
    Case("our judgement, score and label", lines({**JUDGED, "label": "up"}), "comparisons",
         "PATH:1: score: give a score"),
    Case("our judgement, neither", lines({**JUDGED, "score": None}), "comparisons", "PATH:1: score: give a score or a"),
    Case("our judgement, an unknown label", lines({**JUDGED, "score": None, "label": "so so"}), "comparisons",
         "PATH:1: label: 'so so' is neither"),
    Case("our judgement, an infinite score", raw("d.jsonl", json.dumps(JUDGED).replace("1.0}", "1e999}")),
         "comparisons",
         "PATH:1: score: Input should be a finite number"),
    Case("our judgement, a score beyond floats", lines({**JUDGED, "score": 10**400}), "comparisons", "PATH:1: score: "),
    Case("our prompt, a number for an id", lines({**PROMPT, "id": 3}), "prompts",
         "PATH:1: id: Input should be a valid s"),
    Case("our prompt, half a surrogate", raw("d.jsonl", json.dumps({**PROMPT, "category": "\ud800"})), "prompts",
         "PATH:1: category: half a surrogate pair"),
    Case("our prompt, an empty dialogue", lines({**PROMPT, "dialog": []}), "prompts",
         "PATH:1: dialog: the dialogue is e"),
    Case("our comparison, finished unknown", lines({**OURS, "finished_chosen": "eos"}), "comparisons",
         "finished_chosen: "),
    Case("our comparison, a prompt of text", lines(OURS, {**OURS, "prompt": "hi"}), "comparisons", "PATH:2: prompt: "),
    Case("history of one", lines({"instruction": "a", "output": "b", "history": [["c"]]}), "demonstrations",
         "PATH:1: history.0: expected a pair of texts"),
    Case("history of numbers", lines({"instruction": "a", "output": "b", "history": [[1, 2]]}), "demonstrations",
         "PATH:1: history.0: expected text, found int"),
    Case("history as text", lines({"instruction": "a", "output": "b", "history": "c"}), "demonstrations",
         "PATH:1: history: expected a list of pairs"),
    Case("an instance that is none", lines({"instruction": "a", "instances": [3]}), "demonstrations",
         "instances.0: exp"),
    Case("an instance without an answer", lines({"instruction": "a", "instances": [{"input": "b"}]}), "demonstrations",
         "PATH:1: output: the field is missing"),
    Case("a system message alone", lines({"messages": turns(("system", "a"))}), "prompts", "a system message alone"),
    Case("conversations an object", lines({"conversations": {"from": "human"}}), "prompts",
         "conversations: expected a l"),
    Case("completion of two", lines({"prompt": "a", "completion": turns(("assistant", "b"), ("user", "c"))}),
         "demonstrations", "PATH:1: completion: expected one message, the assistant's"),
    Case("xstest without a prompt", raw("d.csv", f"{XSTEST}1,,t,safe\n"), "prompts",
         "PATH:2: prompt: the text is empty"),
    Case("xstest with too many cells", raw("d.csv", f"{XSTEST}1,a,t,safe,more\n"), "prompts",
         "PATH:2: the row has not"),
    Case("a table's quote inside", raw("d.csv", f'{XSTEST}1,"a"b,t,safe\n'), "prompts", "PATH:2: not CSV"),
    Case("a text row of numbers", lines({"text": 3}), "texts", "PATH:1: text: expected text, found int"),
    Case("a text row of blanks", lines({"text": "a"}, {"text": " "}), "texts", "PATH:2: text: the text is empty"),
    Case("a source that is a list", lines(with_key({"prompt": "a"}, "source", [])), "prompts",
         "PATH:1: source: expected"),
    Case("a category that is a number", lines(with_key({"prompt": "a"}, "category", 3)), "prompts",
         "PATH:1: category: "),
    Case("a prompt that is an empty list", lines({"prompt": []}), "prompts",
         "PATH:1: prompt: expected a list of messages"),
    Case("margin beyond floats", lines({**PAIR, "margin": 10**400}), "comparisons", "PATH:1: margin: "),
    Case("PandaLM ties", lines({**PANDA, "annotator1": 0, "annotator2": 0, "annotator3": 0}), "comparisons",
         "1 × a tie"),
]  # fmt: skip


def proto(*fields: tuple[int, int | bytes]) -> bytes:
    from ayni.text.model_proto import _field

    return b"".join(_field(number, value) for number, value in fields)


def changed_model(change: Callable[[Any], Any], more: bytes = b"") -> Maker:
    """A sound SentencePiece model but for `change` of its vocabulary, and with `more` fields at the end."""

    def make(folder: Path) -> Path:
        from ayni.text.model_proto import build_model, parse_model
        from ayni.text.tokenizer import train_tokenizer

        vocabulary = parse_model(train_tokenizer(["the river is wide"] * 3, 280).codec.model)  # type: ignore[union-attr]
        return raw("tokenizer.model", build_model(change(vocabulary)) + more)(folder)

    return make


def changed_json(**change: Any) -> Maker:
    def make(folder: Path) -> Path:
        special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        names = ["<unk>", "<s>", "</s>"]
        sound = {
            "version": "1.0",
            "added_tokens": [{"id": id, "content": name, **special} for id, name in enumerate(names)],
            "model": {"type": "BPE", "vocab": {n: id for id, n in enumerate([*names, "a", "b"])}, "merges": []},
        }
        model = change.get("model", {})  # made anew each time it is asked for
        return raw("tokenizer.json", json.dumps({**sound, **change, "model": {**sound["model"], **model}}))(folder)  # type: ignore[dict-item]

    return make


def grown(*contents: str) -> dict[str, Any]:
    parts = [{"type": "Replace", "pattern": {"String": "a"}, "content": content} for content in contents]
    return {"type": "Sequence", "normalizers": parts}


BROKEN_TOKENIZERS = [
    Case("a varint without end", raw("tokenizer.model", b"\xff" * 5000), "tokenizer", "a number has more than 64 bits"),
    Case("a length beyond the file", raw("tokenizer.model", b"\x0a\xff\xff\xff\xff\x7f"), "tokenizer", "ends inside"),
    Case("an unknown wire type", raw("tokenizer.model", b"\x0b"), "tokenizer", "wire type 3 is unknown"),
    Case("a number for a piece", raw("tokenizer.model", proto((1, 3))), "tokenizer", "a number stands where text"),
    Case("a piece not UTF-8", raw("tokenizer.model", proto((1, proto((1, b"\xff"))))), "tokenizer",
         "not a SentencePiece"),
    Case("a long piece", raw("tokenizer.model", proto((1, proto((1, b"a" * 5000))))), "tokenizer",
         "a piece of 5000 char"),
    Case("millions of pieces", raw("tokenizer.model", b"\x0a\x00" * (1 << 20) + b"\x0a\x00"), "tokenizer",
         "more than 1048"),
    Case("settings twice", changed_model(lambda v: v, proto((3, b""))), "tokenizer", "a part of it stands twice"),
    Case("a denormaliser", changed_model(lambda v: v, proto((5, proto((2, b"x"))))), "tokenizer",
         "it changes the text"),
    Case("a normaliser", changed_model(lambda v: replace(v, charsmap=b"x")), "tokenizer", "normalises text"),
    Case("an ordinary EOS", changed_model(lambda v: replace(v, eos=270)), "tokenizer", "EOS is the ordinary piece"),
    Case("an ordinary BOS", changed_model(lambda v: replace(v, bos=269)), "tokenizer", "BOS is the ordinary piece"),
    Case("no EOS", changed_model(lambda v: replace(v, eos=-1)), "tokenizer", "has no BOS or no EOS"),
    Case("a unigram model", changed_model(lambda v: replace(v, model_type=1)), "tokenizer",
         "is not BPE with byte fallb"),
    Case("no byte fallback", changed_model(lambda v: replace(v, byte_fallback=False)), "tokenizer",
         "is not BPE with byt"),
    Case("a score that is none", changed_model(lambda v: replace(v, pieces=(*v.pieces[:-1],
         replace(v.pieces[-1], score=float("nan"))))), "tokenizer", "has a score that is no number"),
    Case("a doubling normaliser", changed_json(normalizer=grown(*["aa"] * 40)), "tokenizer", "1e+09 times as long"),
    Case("a long normaliser", changed_json(normalizer=grown("a" * 999)), "tokenizer",
         "its normalizer makes a text up to"),
    Case("an empty pattern", changed_json(normalizer={"type": "Replace", "pattern": {"String": ""}, "content": "b"}),
         "tokenizer", "its pattern '' finds nothing and replaces that"),
    *(Case(f"a pattern that takes nothing, {pattern}", changed_json(normalizer={"type": "Sequence", "normalizers": [
        {"type": "Replace", "pattern": {"Regex": pattern}, "content": "x"}, {"type": "Lowercase"}]}), "tokenizer",
        "finds nothing and replaces that") for pattern in ("", "a*", "^", "(?=h)", r"\b", "h?", "a{0}")),
    Case("a pattern of another dialect", changed_json(normalizer={"type": "Replace", "pattern": {"Regex": r"\h+"},
         "content": "x"}), "tokenizer", "finds cannot be told"),
    Case("nothing put before", changed_json(normalizer={"type": "Prepend", "prepend": ""}), "tokenizer",
         "it puts nothing before a text"),
    Case("a long decoder", changed_json(decoder={"type": "Replace", "pattern": {"String": "a"}, "content": "b" * 999}),
         "tokenizer", "its decoder makes a text up to 999 times as long"),
    Case("tables of a normaliser", changed_json(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
         "tokenizer", "what Precompiled does to a text cannot be told"),
    Case("a normaliser of no kind", changed_json(normalizer={}), "tokenizer", "PATH:1: not a Hugging Face tokenizer"),
    Case("a normaliser that is a list", changed_json(normalizer=[]), "tokenizer",
         "PATH:1: not a Hugging Face tokenizer"),
    Case("an id beyond memory", changed_json(model={"vocab": {"<s>": 0, "</s>": 2**32 - 1}}), "tokenizer",
         "more than 1048"),
    Case("a long token", changed_json(model={"vocab": {"a" * 5000: 0}}), "tokenizer", "a piece of 5000 characters"),
    Case("a vocabulary of nothing", changed_json(model={"vocab": {}}), "tokenizer", "PATH:1: not a Hugging Face"),
    Case("ids of text", changed_json(model={"vocab": {"a": "1"}}), "tokenizer", "PATH:1: not a Hugging Face tokenizer"),
    Case("a prefix inside words", changed_json(model={"continuing_subword_prefix": "##"}), "tokenizer",
         "BPE with a prefix"),
    Case("dropout", changed_json(model={"dropout": 0.1}), "tokenizer",
         "with dropout a text has other tokens every time"),
    Case("half a surrogate in it", changed_json(post_processor={"type": "\ud800"}), "tokenizer",
         "surrogates not allowed"),
    Case("an empty template", changed_json(post_processor={"type": "TemplateProcessing", "single": []}), "tokenizer",
         "PATH:1: not a Hugging Face tokenizer"),
    Case("merges of unknown pieces", changed_json(model={"merges": [["x", "y"]]}), "tokenizer",
         "PATH:1: not a Hugging"),
    Case("added tokens that are none", changed_json(added_tokens=[3]), "tokenizer", "PATH:1: not a Hugging Face"),
    Case("a tok.bin of endless pieces", tok_bin(*_SPECIAL, (0.0, b"a" * 5000), longest=9999), "tokenizer",
         "PATH: piece 3: a piece of 5000 characters"),
    Case("a tok.bin with a negative length", raw("tok.bin", struct.pack("<ifi", 9, 0.0, -1)), "tokenizer",
         "length of -1"),
    Case("a tok.bin with a huge length", raw("tok.bin", struct.pack("<ifi", 2**31 - 1, 0.0, 2**31 - 1)), "tokenizer",
         "PATH: piece 0: a length of 2147483647 bytes does not fit"),
]  # fmt: skip
HOSTILE = [*LIMITS, *SHAPES, *BROKEN_TOKENIZERS]
