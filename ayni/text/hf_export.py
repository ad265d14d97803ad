"""A tokenizer as a standard Hugging Face directory, with equal ids in transformers.

A SentencePiece model is written twice: as it is (`tokenizer.model`) and as `tokenizer.json`, where the dummy
prefix is a normaliser. transformers' own LlamaTokenizer puts no prefix before text that starts with a space
(" Hello" would lose a token), so the class named is the one that reads `tokenizer.json` as it stands.
"""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

from ayni.text.model_proto import CONTROL, NORMAL, UNKNOWN, Vocabulary

CLASS = "PreTrainedTokenizerFast"


def _merges(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Every split of a piece into two, best score first: the order in which SentencePiece merges."""
    ids = {piece.text: id for id, piece in enumerate(vocabulary.pieces) if piece.kind == NORMAL}
    found = []
    for text, id in ids.items():
        score = vocabulary.pieces[id].score
        for cut in range(1, len(text)):
            left, right = ids.get(text[:cut]), ids.get(text[cut:])
            if left is not None and right is not None:
                found.append((-score, id, left, right, text[:cut], text[cut:]))
    return [(left, right) for *_, left, right in sorted(found)]


def tokenizer_json(vocabulary: Vocabulary) -> Tokenizer:
    """The same tokenizer in the `tokenizers` library."""
    v = vocabulary
    unk, bos = v.pieces[v.unk].text, v.pieces[v.bos].text
    tokenizer = Tokenizer(
        models.BPE(
            vocab={piece.text: id for id, piece in enumerate(v.pieces)},
            merges=_merges(v),
            unk_token=unk,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    escape = normalizers.Replace(" ", "▁")
    strip = []
    if v.add_dummy_prefix:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), escape])
        strip = [decoders.Strip(content=" ", left=1, right=0)]
    else:
        tokenizer.normalizer = escape
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[bos, "$A"], pair=[bos, "$A", f"{bos}:1", "$B:1"], special_tokens=[(bos, v.bos)]
    )
    tokenizer.add_special_tokens(
        [
            AddedToken(piece.text, normalized=False, special=True)
            for piece in v.pieces
            if piece.kind in (CONTROL, UNKNOWN)
        ]
    )
    return tokenizer


def special_tokens(names: dict[str, str]) -> dict[str, str]:
    """bos, eos, unk and pad for `special_tokens_map.json`. Pad is never EOS: without one, unk, else BOS, serves."""
    keys = ("bos_token", "eos_token", "unk_token", "pad_token")
    named: dict[str, str] = {key: names[key] for key in keys if key in names}
    if named.get("pad_token") in (None, named["eos_token"]):
        named.pop("pad_token", None)
        spare = named.get("unk_token", named["bos_token"])
        if spare != named["eos_token"]:
            named["pad_token"] = spare
    return named


def tokenizer_config(named: dict[str, str], *, add_bos: bool) -> dict[str, Any]:
    return {
        "tokenizer_class": CLASS,
        "add_bos_token": add_bos,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 10**30,  # transformers' way of saying that the tokenizer sets no limit
        "padding_side": "right",
        **named,
    }
