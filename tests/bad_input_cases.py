"""Malformed files: (name, maker, reader, what the error must say). The makers write into a fresh folder.

`reader` names what reads the file: demonstrations, comparisons, prompts, texts, tokenizer.
"""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

Maker = Callable[[Path], Path]


class Case(NamedTuple):
    name: str
    make: Maker
    reader: str
    says: str  # "PATH" stands for the file


def raw(name: str, content: bytes | str) -> Maker:
    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return make


def lines(*values: Any) -> Maker:
    return raw("data.jsonl", "".join(json.dumps(value) + "\n" for value in values))


def array(*values: Any) -> Maker:
    return raw("data.json", "[\n" + ",\n".join(json.dumps(value) for value in values) + "\n]\n")


def turns(*messages: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in messages]


CHAT = {"messages": turns(("user", "hi"), ("assistant", "ho"))}
PAIR = {"prompt": "hi", "chosen": "ho", "rejected": "no"}
OURS = {"prompt": {"id": "p", "dialog": turns(("user", "hi"))}, "chosen": "ho", "rejected": "no"}
PROMPT = {"id": "p", "dialog": turns(("user", "hi"))}
HH = {"chosen": "\n\nHuman: hi\n\nAssistant: ho", "rejected": "\n\nHuman: hi\n\nAssistant: no"}
PANDA = {"instruction": "x", "response1": "a", "response2": "b", "annotator1": 1, "annotator2": 1, "annotator3": 1}
SHARE = {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]}
OASST = {"message_tree_id": "t", "prompt": {"role": "prompter", "text": "hi", "replies": []}}


def chat(*messages: tuple[str, str]) -> Maker:
    return lines(CHAT, {"messages": turns(*messages)})


def empty_directory(folder: Path) -> Path:
    (folder / "data").mkdir()
    return folder / "data"


def tok_bin(*entries: tuple[float, bytes], longest: int = 6, tail: bytes = b"") -> Maker:
    body = b"".join(struct.pack("<fi", score, len(piece)) + piece for score, piece in entries)
    return raw("tok.bin", struct.pack("<i", longest) + body + tail)


_SPECIAL = ((0.0, b"<unk>"), (0.0, b"\n<s>\n"), (0.0, b"\n</s>\n"))
_BYTES = tuple((0.0, f"<0x{byte:02X}>".encode()) for byte in range(256))


def truncated_model(folder: Path) -> Path:
    from ayni.text.tokenizer import train_tokenizer

    path = folder / "tokenizer.model"
    path.write_bytes(train_tokenizer(["the river is wide"] * 3, 280).codec.model[:1500])
    return path


def no_special_names(folder: Path) -> Path:
    content = {"version": "1.0", "model": {"type": "WordLevel", "vocab": {"hi": 0, "?": 1}, "unk_token": "?"}}
    return raw("tokenizer.json", json.dumps(content))(folder)


def unknown_special_name(folder: Path) -> Path:
    raw("tokenizer_config.json", '{"eos_token": "<end>"}')(folder)
    content = {"version": "1.0", "model": {"type": "WordLevel", "vocab": {"<s>": 0, "?": 1}, "unk_token": "?"}}
    return raw("tokenizer.json", json.dumps(content))(folder)


FILES = [
    Case("missing file", lambda folder: folder / "data.jsonl", "demonstrations", "PATH: no such file"),
    Case("empty directory", empty_directory, "demonstrations", "PATH: no .json"),
    Case("empty directory of texts", empty_directory, "texts", "PATH: no .md"),
    Case("unsupported suffix", raw("data.parquet", "x"), "demonstrations", "PATH: the suffix .parquet"),
    Case("empty file", raw("data.jsonl", ""), "demonstrations", "PATH:1: the file is empty"),
    Case("only blank lines", raw("data.jsonl", "\n \n"), "comparisons", "PATH:1: the file is empty"),
    Case("empty list", raw("data.json", "[]"), "demonstrations", "PATH:1: the file holds no rows"),
    Case("empty text", raw("book.md", "\n\n"), "texts", "PATH:1: the file is empty"),
    Case("bad UTF-8", raw("data.jsonl", b'{"messages": []}\n{"x": "\xff"}\n'), "demonstrations", "PATH:2: byte 0xff"),
    Case("bad UTF-8 in a book", raw("book.md", b"# A\n\nfine\n\xe4\xb8\n"), "texts", "PATH:4: byte 0xe4"),
    Case("UTF-16", raw("data.json", "[]".encode("utf-16")), "demonstrations", "PATH:1: byte 0xff"),
    Case("gzip cut off", raw("data.jsonl.gz", gzip.compress(b"x" * 999)[:-12]), "comparisons", "PATH: cannot be read"),
    Case("not gzip at all", raw("data.jsonl.gz", "{}"), "comparisons", "PATH: cannot be read"),
    Case("truncated line", raw("data.jsonl", json.dumps(CHAT) + "\n{\"messa"), "demonstrations", "PATH:2: not JSON"),
    Case("truncated list", raw("data.json", '[\n{"instruction": "a", "output": "b"},\n{"inst'), "demonstrations",
         "PATH:3: not JSON"),
    Case("list without a comma", raw("data.json", '[{"prompt": "a"}\n{"prompt": "b"}]'), "prompts", "PATH:2: not JSON"),
    Case("list with a comma too many", raw("data.json", '[{"prompt": "a"},\n]'), "prompts", "not JSON"),
    Case("something after the list", raw("data.json", '[{"prompt": "a"}]\nx'), "prompts", "PATH:2: not JSON"),
    Case("a comma before the list ends", raw("data.json", '[\n,]'), "prompts", "PATH:2: not JSON"),
    Case("deep nesting", raw("data.jsonl", "[" * 200_000), "prompts", "PATH:1: "),
    Case("NaN", raw("data.jsonl", '{"prompt": "a", "chosen": "b", "rejected": "c", "margin": NaN}'), "comparisons",
         "PATH:1: NaN is not JSON"),
    Case("duplicate keys", raw("data.jsonl", '{"prompt": "a", "prompt": "b"}'), "prompts", "stands twice"),
    Case("a row that is a list", lines(CHAT, [1]), "demonstrations", "PATH:2: a row must be an object, not list"),
    Case("a row that is a number", array(CHAT, 3), "demonstrations", "PATH:3: a row must be an object, not int"),
    Case("no known keys", lines({"question": "a", "reply": "b"}), "demonstrations", "PATH:1: no known format"),
    Case("comparisons as demonstrations", lines(PAIR), "demonstrations", "PATH: expected demonstrations, "),
    Case("demonstrations as texts", lines(CHAT), "texts", "PATH: expected texts, found demonstrations"),
    Case("text rows as prompts", lines({"text": "a"}), "prompts", "PATH: expected prompts, found texts"),
    Case("CSV without columns", raw("data.csv", "a,b\n1,2\n"), "prompts", "PATH:2: no known format"),
    Case("CSV row too short", raw("data.csv", "id,prompt,type,label\n1,x\n"), "prompts", "PATH:2: the row has not"),
    Case("CSV quote left open", raw("data.csv", 'id,prompt,type,label\n1,"x,t,safe\n'), "prompts", "not CSV"),
    Case("CSV column twice", raw("data.csv", "id,id,prompt,label\n1,1,x,safe\n"), "prompts", "PATH:1: a column name"),
    Case("CSV label unknown", raw("data.csv", "id,prompt,type,label\n1,x,t,safe\n2,y,t,odd\n"), "prompts",
         "PATH:3: label: 'odd'"),
]  # fmt: skip
DIALOGS = [
    Case("empty dialogue", lines(CHAT, {"messages": []}), "demonstrations", "PATH:2: messages: expected a list"),
    Case("messages as text", lines({"messages": "hi"}), "demonstrations", "PATH:1: messages: expected a list"),
    Case("message as text", lines({"messages": ["hi"]}), "demonstrations", "PATH:1: messages.0: expected an object"),
    Case("unknown role", chat(("user", "a"), ("bot", "b")), "demonstrations", "PATH:2: messages.1.role: 'bot'"),
    Case("content null", lines({"messages": [{"role": "user", "content": None}]}), "prompts",
         "PATH:1: messages.0.content: expected text, found null"),
    Case("content missing", lines({"messages": [{"role": "user"}]}), "prompts", "messages.0.content: the field is"),
    Case("content blank", chat(("user", " "), ("assistant", "b")), "demonstrations", "PATH:2: messages.0.content:"),
    Case("half a surrogate", raw("data.jsonl", '{"prompt": "\\ud800"}'), "prompts", "PATH:1: prompt: half a surr"),
    Case("message with another key", lines({"messages": [{"role": "user", "content": "a", "tool": 1}]}), "prompts",
         "PATH:1: messages.0.tool: unknown key"),
    Case("a misspelt key", lines({**CHAT, "trian": "last"}), "demonstrations", "PATH:1: trian: unknown key; did you"),
    Case("train unknown", lines({**CHAT, "train": "first"}), "demonstrations", "PATH:1: train: 'first'"),
    Case("ends with the user", chat(("user", "a"), ("assistant", "b"), ("user", "c")), "demonstrations",
         "PATH:2: messages.2.role: the last message is not the assistant's"),
    Case("no assistant turn", chat(("user", "a")), "demonstrations", "PATH:2: messages.0.role: the last"),
    Case("two systems", chat(("system", "a"), ("system", "b"), ("user", "c"), ("assistant", "d")), "demonstrations",
         "PATH:2: messages.1.role: the role is system"),
    Case("a system in the middle", chat(("user", "a"), ("system", "b")), "demonstrations", "messages.1.role:"),
    Case("the assistant first", chat(("assistant", "a"), ("user", "b")), "prompts", "PATH:2: messages.0.role:"),
    Case("the user twice", chat(("user", "a"), ("user", "b")), "prompts", "PATH:2: messages.1.role: the role is user"),
    Case("a smuggled tag", chat(("user", "[/INST] b"), ("assistant", "b")), "demonstrations",
         "PATH:2: messages.0.content: a message must not contain [/INST]"),
    Case("a smuggled system tag", lines({"prompt": "<<SYS>> x"}), "prompts", "PATH:1: prompt.0.content: a message"),
    Case("ShareGPT role", lines({"conversations": [{"from": "tool", "value": "x"}]}), "demonstrations",
         "PATH:1: conversations.0.from: 'tool'"),
    Case("ShareGPT value", array(SHARE, {"conversations": [{"from": "human", "value": 3}]}), "demonstrations",
         "PATH:3: conversations.0.value: expected text, found int"),
    Case("Alpaca without an answer", array({"instruction": "a", "output": "b"}, {"instruction": "a"}),
         "demonstrations", "PATH:3: response: the field is missing"),
    Case("Alpaca instruction a list", array({"instruction": ["a"], "output": "b"}), "demonstrations",
         "PATH:2: instruction: expected text, found list"),
    Case("completion missing", lines({"prompt": "a", "completion": None}), "demonstrations", "PATH:1: completion:"),
    Case("self-instruct without instances", lines({"instruction": "a", "instances": []}), "demonstrations",
         "PATH:1: instances: expected a list"),
    Case("our demonstration, unknown key", lines({"dialog": CHAT["messages"], "sorce": "x"}), "demonstrations",
         "PATH:1: sorce: "),
    Case("our demonstration, wrong type", lines({"dialog": 3}), "demonstrations", "PATH:1: dialog: "),
    Case("our prompt, empty id", lines({**PROMPT, "id": ""}), "prompts", "PATH:1: id: the text is empty"),
    Case("our prompt, the same id twice", lines(PROMPT, PROMPT), "prompts", "PATH:2: id: 'p' is the id of another"),
    Case("our prompt, unknown task", lines({**PROMPT, "task": "harm"}), "prompts", "PATH:1: task: "),
    Case("our prompt, ends with an answer", lines({"id": "p", "dialog": CHAT["messages"]}), "prompts",
         "PATH:1: dialog.1.role: the last message is not the user's"),
]  # fmt: skip
PAIRS = [
    Case("rejected missing", lines(PAIR, {"prompt": "a", "chosen": "b"}), "comparisons", "PATH:2: rejected: "),
    Case("chosen a number", lines({**PAIR, "chosen": 3}), "comparisons", "PATH:1: chosen: expected text, found int"),
    Case("chosen and rejected the same", lines({**PAIR, "rejected": "ho "}), "comparisons",
         "PATH: holds no comparisons (left out: 1 × the answers are the same)"),
    Case("negative margin", lines({**PAIR, "margin": -1}), "comparisons", "PATH:1: margin: "),
    Case("infinite margin", raw("data.jsonl", json.dumps({**PAIR, "margin": 1}).replace("1}", "1e999}")),
         "comparisons", "PATH:1: margin: "),
    Case("margin as text", lines({**PAIR, "margin": "1"}), "comparisons", "PATH:1: margin: "),
    Case("rating unknown", lines({**PAIR, "rating": "good"}), "comparisons", "PATH:1: rating: "),
    Case("rating misspelt", lines({**PAIR, "ratting": "better"}), "comparisons", "PATH:1: ratting: unknown key"),
    Case("task unknown", lines({**PAIR, "task": "both"}), "comparisons", "PATH:1: task: 'both'"),
    Case("chosen unsafe, rejected safe", lines({**PAIR, "safety": "rejected_safe"}), "comparisons",
         "PATH:1: safety: the chosen answer is unsafe"),
    Case("no prompt and plain texts in messages", lines({"chosen": turns(("assistant", "a")), "rejected": "b"}),
         "comparisons", "PATH:1: prompt: the field is missing"),
    Case("dialogues that part early", lines({"chosen": turns(("user", "a"), ("assistant", "b")),
         "rejected": turns(("user", "c"), ("assistant", "d"))}), "comparisons", "PATH:1: rejected: differs"),
    Case("chosen holds two messages", lines({**PAIR, "chosen": turns(("user", "a"), ("assistant", "b"))}),
         "comparisons", "PATH:1: chosen: expected one message"),
    Case("a tag in an answer", lines({**PAIR, "rejected": "x [INST]"}), "comparisons", "PATH:1: rejected: a message"),
    Case("hh without Assistant:", lines(HH, {**HH, "chosen": "\n\nHuman: hi"}), "comparisons", "PATH:2: chosen: a tr"),
    Case("hh without Human:", lines(HH, {**HH, "rejected": "hi"}), "comparisons", "PATH:2: rejected: a transcript"),
    Case("hh without any sound row", lines({**HH, "rejected": "\n\nHuman: hi\n\nAssistant:"}), "comparisons",
         "PATH: holds no comparisons (left out: 1 × a turn is empty)"),
    Case("ShareGPT pair without chosen", array({**SHARE, "rejected": SHARE["conversations"][1]}), "comparisons",
         "PATH:2: chosen.0: expected an object"),
    Case("PandaLM vote", array(PANDA, {**PANDA, "annotator2": 3}), "comparisons", "PATH:3: annotator2: 3 is not"),
    Case("PandaLM vote missing", array({**PANDA, "annotator3": None}), "comparisons", "PATH:2: annotator3: None"),
    Case("PandaLM votes true", array({**PANDA, "annotator1": True}), "comparisons", "PATH:2: annotator1: True"),
    Case("tree without a prompt", lines({"message_tree_id": "t"}), "comparisons", "PATH:1: prompt: expected an object"),
    Case("tree with a wrong role", lines({**OASST, "prompt": {"role": "user", "text": "x"}}), "comparisons",
         "PATH:1: prompt.role: 'user'"),
    Case("our comparison, unknown key", lines({**OURS, "better": 1}), "comparisons", "PATH:1: better: "),
    Case("our comparison, chosen unsafe", lines({**OURS, "safety": "chosen_unsafe"}), "comparisons",
         "PATH:1: safety: "),
    Case("our comparison, negative margin", lines({**OURS, "margin": -0.5}), "comparisons", "PATH:1: margin: "),
    Case("our comparison, prompt ends with an answer", lines({**OURS, "prompt": {"id": "p",
         "dialog": CHAT["messages"]}}), "comparisons", "PATH:1: prompt.dialog.1.role: the last"),
]  # fmt: skip
TOKENIZERS = [
    Case("no such tokenizer", lambda folder: folder / "tokenizer", "tokenizer", "PATH: no such tokenizer"),
    Case("no such model", lambda folder: folder / "tokenizer.model", "tokenizer", "PATH: no such file"),
    Case("a directory without a tokenizer", empty_directory, "tokenizer", "PATH: no tokenizer.model"),
    Case("not a tokenizer", raw("notes.txt", "x"), "tokenizer", "PATH: not a tokenizer"),
    Case("empty model", raw("tokenizer.model", ""), "tokenizer", "PATH: "),
    Case("truncated model", truncated_model, "tokenizer", "PATH: not a SentencePiece model"),
    Case("a model of noise", raw("tokenizer.model", bytes(range(200, 256)) * 9), "tokenizer", "PATH: not a Sentence"),
    Case("tokenizer.json not JSON", raw("tokenizer.json", "{"), "tokenizer", "PATH:1: not JSON"),
    Case("tokenizer.json a list", raw("tokenizer.json", "[]"), "tokenizer", "PATH:1: model: not a Hugging Face"),
    Case("tokenizer.json of no kind", raw("tokenizer.json", '{"model": {"type": "Magic"}}'), "tokenizer",
         "PATH:1: not a Hugging Face tokenizer"),
    Case("tokenizer.json without EOS", no_special_names, "tokenizer", "PATH: bos_token: no such token"),
    Case("EOS not in the vocabulary", unknown_special_name, "tokenizer", "PATH: eos_token: '<end>' is not in"),
    Case("tok.bin of two bytes", raw("tok.bin", b"ab"), "tokenizer", "PATH: not a tok.bin"),
    Case("tok.bin cut off", tok_bin(*_SPECIAL, *_BYTES, tail=b"\0\0"), "tokenizer", "PATH: piece 259: the file ends"),
    Case("tok.bin with a long piece", tok_bin(*_SPECIAL, longest=5), "tokenizer", "PATH: piece 2: a length of 6"),
    Case("tok.bin with a NaN", tok_bin(*_SPECIAL, (float("nan"), b"a")), "tokenizer", "PATH: piece 3: the score is"),
    Case("tok.bin without bytes", tok_bin(*_SPECIAL, (0.0, b"a")), "tokenizer", "PATH: ids 3 to 258 are not"),
    Case("tok.bin without BOS", tok_bin((0.0, b"a")), "tokenizer", "PATH: piece 0: 'a' stands where"),
    Case("tok.bin not UTF-8", tok_bin(*_SPECIAL, (0.0, b"\xff")), "tokenizer", "PATH: piece 3: not UTF-8"),
    Case("tok.bin with a piece twice", tok_bin(*_SPECIAL, *_BYTES, (0.0, b"a"), (-1.0, b"a")), "tokenizer",
         "PATH: SentencePiece cannot load"),
]  # fmt: skip
CASES = [*FILES, *DIALOGS, *PAIRS, *TOKENIZERS]
