"""Any Hugging Face `tokenizer.json`, read so that text can never become a special token."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import tokenizers

from ayni.errors import BadInput
from ayni.files import read_json
from ayni.text.hf_check import begins_with, check_tokenizer

# Where no file beside names them: the names in common use, first match that the vocabulary holds.
_USUAL = {
    "bos_token": ("<s>", "<|begin_of_text|>", "<bos>", "<|endoftext|>"),
    "eos_token": ("</s>", "<|end_of_text|>", "<eos>", "<|endoftext|>"),
    "unk_token": ("<unk>", "[UNK]"),
    "pad_token": ("<pad>", "[PAD]"),
}


def _content(value: Any) -> str | None:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _named_tokens(directory: Path, vocab: dict[str, int], path: Path) -> dict[str, str]:
    """Name of bos, eos, unk and pad: from the files beside, else the usual names."""
    settings: dict[str, Any] = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        if (directory / file).is_file():
            value = read_json(directory / file)
            if not isinstance(value, dict):
                raise BadInput("expected an object", path=directory / file, line=1)
            settings |= {key: item for key, item in value.items() if item is not None}
    named = {}
    for key, usual in _USUAL.items():
        name = _content(settings.get(key)) or next((name for name in usual if name in vocab), None)
        if name is not None and name not in vocab:
            raise BadInput(f"{name!r} is not in the vocabulary", path=path, field=key)
        if name is not None:
            named[key] = name
    for key in ("bos_token", "eos_token"):
        if key not in named:
            raise BadInput("no such token", path=path, field=key, fix="name it in tokenizer_config.json beside")
    return named


class HuggingFaceCodec:
    """A loaded tokenizer.json. Every named or special token is split as plain text when a text spells it."""

    def __init__(self, path: Path) -> None:
        self.json = read_json(path)
        if not isinstance(self.json, dict) or not isinstance(self.json.get("model"), dict):
            raise BadInput("not a Hugging Face tokenizer", path=path, line=1, field="model")
        self.json |= {"truncation": None, "padding": None}  # nobody wants them, nor any size that stands in them
        try:
            json.dumps(self.json, ensure_ascii=False).encode()  # half a surrogate pair is a ValueError
            check_tokenizer(self.json)
        except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
            raise BadInput(f"not a Hugging Face tokenizer for use here ({error})", path=path, line=1) from None
        self.tokenizer = self._load(path)
        vocab = self.tokenizer.get_vocab(with_added_tokens=True)
        self.names = _named_tokens(path.parent, vocab, path)
        added = self.json.get("added_tokens") or []
        for token in added:
            if token["content"] in self.names.values():
                token["special"] = True  # or the tokenizer would parse it from text
        self.tokenizer = self._load(path)
        self.tokenizer.encode_special_tokens = True
        self.bos = vocab[self.names["bos_token"]]
        self.eos = vocab[self.names["eos_token"]]
        self.unk = vocab.get(self.names.get("unk_token", ""), -1)
        self.pad = vocab.get(self.names.get("pad_token", ""))
        self.vocab_size = max(vocab.values()) + 1
        specials = {token["id"] for token in added if token.get("special")}
        self.special = frozenset(specials | {vocab[name] for name in self.names.values()})
        self.adds_bos = begins_with(self.json.get("post_processor"), self.names["bos_token"])
        self._never = self.special - {self.unk} | {self.bos, self.eos}  # where unknown text would become EOS

    def _load(self, path: Path) -> tokenizers.Tokenizer:
        try:
            # BOS and EOS are ours to add
            return tokenizers.Tokenizer.from_str(json.dumps(self.json | {"post_processor": None}))
        except Exception as error:  # the library raises plain Exception
            raise BadInput(f"not a Hugging Face tokenizer ({error})", path=path, line=1) from None

    def encode(self, text: str) -> list[int]:
        try:
            ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        except Exception as error:  # the library raises plain Exception
            raise BadInput(f"this tokenizer cannot encode the text ({error})") from None
        if not self._never.isdisjoint(ids):
            spelt = next(self.piece(id) for id in ids if id in self._never)
            raise BadInput(f"the text spells {spelt!r}, which this tokenizer cannot write as plain text")
        return ids

    def decode(self, ids: list[int]) -> str:
        text: str = self.tokenizer.decode(ids, skip_special_tokens=False)
        return text

    def piece(self, id: int) -> str:
        return self.tokenizer.id_to_token(id) or ""

    def fingerprint(self) -> str:
        ids = (self.bos, self.eos, self.unk, self.pad)
        text = json.dumps([ids, self.json], sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()
