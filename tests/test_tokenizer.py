"""Tokenizers: golden ids, three kinds of file, no special token from text, transformers agrees."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ayni.errors import BadInput
from ayni.text.model_proto import BYTE, build_model, parse_model
from ayni.text.tok_bin import read_tok_bin, write_tok_bin
from ayni.text.tokenizer import StreamDecoder, Tokenizer, load_tokenizer, train_tokenizer

STORY = [
    "Once upon a time there was a village by the river, and in it lived a baker named Ada.",
    "Ada baked 12 loaves every morning. The miller, Tom, brought her flour; the children brought her stories.",
    "One day the river rose, and the whole village came together to carry the flour up the hill.",
] * 3
TEXTS = [
    "中国的首都是哪里",
    "Hello",
    " Hello",
    "  two  spaces  ",
    "\n",
    "\t\ttabs\r\n",
    "🦙 and 👩‍👩‍👧",
    "a\0b",
    "</s> <s> <unk> <0x0A> [INST]",
    "½ Führer нещо  1234567",
    "",
]
SPELT = ["</s>", "<s>", "<unk>", "x </s>y", "</s></s>", "<s>[INST] hi [/INST]", "<pad>", "<0x0A>"]


@pytest.fixture(scope="module")
def small() -> Tokenizer:
    return train_tokenizer(STORY, 340)


@pytest.fixture(scope="module")
def llama(data_dir: Path) -> Tokenizer:
    return load_tokenizer(data_dir / "tokenizers/llama2/tokenizer.model")


@pytest.fixture(scope="module")
def golden(data_dir: Path) -> list[tuple[str, list[int]]]:
    """(text, ids without BOS): a text is what lies between two separator lines, without its last line break."""
    folder = data_dir / "tokenizers/llama2"
    texts = (folder / "golden.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    lines = (folder / "golden.out").read_text(encoding="utf-8").split("\n")
    return [(text, [int(id) for id in line.split()]) for text, line in zip(texts, lines, strict=True)]


def all_kinds(small: Tokenizer, tmp_path: Path) -> list[Tokenizer]:
    small.save(tmp_path / "hf")
    write_tok_bin(tmp_path / "tok.bin", small.codec.vocabulary)
    return [small, load_tokenizer(tmp_path / "tok.bin"), load_tokenizer(tmp_path / "hf/tokenizer.json")]


def test_golden_llama2_ids(llama: Tokenizer, golden: list[tuple[str, list[int]]]) -> None:
    assert len(golden) == 47
    for text, ids in golden:
        assert llama.encode(text) == ids
        assert llama.decode(ids) == text
    assert (llama.vocab_size, llama.unk, llama.bos, llama.eos, llama.pad) == (32000, 0, 1, 2, None)
    assert llama.piece(15043) == "▁Hello"


def test_training_is_llama2s_and_deterministic(small: Tokenizer) -> None:
    v = small.codec.vocabulary
    assert small.vocab_size == 340
    assert [piece.text for piece in v.pieces[:4]] == ["<unk>", "<s>", "</s>", "<0x00>"]
    assert all(piece.kind == BYTE for piece in v.pieces[3:259])
    assert not any(len(piece.text) > 1 and any(c.isdigit() for c in piece.text) for piece in v.pieces[259:])
    assert (small.unk, small.bos, small.eos, small.pad) == (0, 1, 2, None)
    assert train_tokenizer(STORY, 340).codec.model == small.codec.model


@pytest.mark.parametrize("size", [512, 1024, 4000])
def test_small_vocabularies_of_a_book(data_dir: Path, size: int) -> None:
    book = (data_dir / "text/aesop-aesop-s-fables.md").read_text(encoding="utf-8")
    tokenizer = train_tokenizer([book], size)
    assert tokenizer.vocab_size == size
    for text in [*TEXTS, book[1000:3000]]:
        assert tokenizer.decode(tokenizer.encode(text)) == text


@settings(max_examples=150, deadline=None)
@given(text=st.text())
def test_every_text_comes_back_without_unk(small: Tokenizer, text: str) -> None:
    ids = small.encode(text)
    assert not small.special & set(ids)
    assert small.decode(ids) == text.replace("▁", " ")  # SentencePiece writes a space as ▁: the one pair it joins


def test_chinese_round_trips(small: Tokenizer, llama: Tokenizer) -> None:
    for tokenizer in (small, llama):
        assert tokenizer.decode(tokenizer.encode("中国的首都是哪里")) == "中国的首都是哪里"


def test_text_never_becomes_a_special_id(small: Tokenizer, tmp_path: Path) -> None:
    for tokenizer in all_kinds(small, tmp_path):
        for text in SPELT:
            ids = tokenizer.encode(text)
            assert ids
            assert not tokenizer.special & set(ids), text
            assert tokenizer.decode(ids) == text


def test_a_named_eos_that_its_file_forgot_to_mark_special_is_still_not_parsed(small: Tokenizer, tmp_path: Path) -> None:
    small.save(tmp_path)
    (tmp_path / "tokenizer.model").unlink()
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    for token in content["added_tokens"]:
        token["special"] = False
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    tokenizer = load_tokenizer(tmp_path)
    assert not tokenizer.special & set(tokenizer.encode("a </s> b <s>"))


def test_a_tokenizer_that_cannot_spell_its_special_token_says_so(tmp_path: Path) -> None:
    content = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2, "hi": 3}, "unk_token": "<unk>"},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode("hi there") == [3, 0]
    with pytest.raises(BadInput, match="cannot write as plain text"):
        tokenizer.encode("hi </s>")


def test_unknown_text_never_becomes_the_end(tmp_path: Path) -> None:
    content = {
        "version": "1.0",
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": {"<s>": 0, "</s>": 1, "hi": 2}, "unk_token": "</s>"},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    (tmp_path / "tokenizer_config.json").write_text('{"unk_token": "</s>"}')
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode("hi hi") == [2, 2]
    with pytest.raises(BadInput, match="the text spells '</s>', which this tokenizer cannot write as plain text"):
        tokenizer.encode("hi there")


def test_special_ids_decode_to_nothing(small: Tokenizer, tmp_path: Path) -> None:
    for tokenizer in all_kinds(small, tmp_path):
        ids = tokenizer.encode("the river")
        assert tokenizer.decode([tokenizer.bos, *ids, tokenizer.eos, tokenizer.unk]) == "the river"
        assert tokenizer.decode([tokenizer.eos]) == ""
        with pytest.raises(BadInput, match="outside the vocabulary"):
            tokenizer.decode([tokenizer.vocab_size])


def test_half_a_surrogate_pair_is_refused(small: Tokenizer) -> None:
    with pytest.raises(BadInput, match="surrogate"):
        small.encode("a\ud800")


def test_the_model_file_is_read_and_written_like_protobuf(small: Tokenizer, llama: Tokenizer) -> None:
    for tokenizer in (small, llama):
        assert parse_model(build_model(tokenizer.codec.vocabulary)) == tokenizer.codec.vocabulary
        processor = tokenizer.codec.processor
        for id in (*range(5), 100, tokenizer.vocab_size - 1):
            piece = tokenizer.codec.vocabulary.pieces[id]
            assert (piece.text, piece.score) == (processor.id_to_piece(id), processor.get_score(id))


def test_fingerprints(small: Tokenizer, tmp_path: Path) -> None:
    _, tok_bin, fast = all_kinds(small, tmp_path)
    assert small.fingerprint == tok_bin.fingerprint == load_tokenizer(tmp_path / "hf").fingerprint
    assert fast.fingerprint == load_tokenizer(tmp_path / "hf/tokenizer.json").fingerprint
    assert train_tokenizer(STORY, 341).fingerprint != small.fingerprint
    assert len(small.fingerprint) == 64


def llama2c_encode(pieces: list[bytes], scores: list[float], text: str) -> list[int]:
    """The slow reference: merge the neighbours with the best score until none is left (llama2.c's `encode`)."""
    ids = {piece: id for id, piece in reversed(list(enumerate(pieces)))}
    tokens = [ids[b" "]] if text else []
    for character in text:
        raw = character.encode()
        tokens += [ids[raw]] if raw in ids else [byte + 3 for byte in raw]
    while True:
        best, place = -1e10, -1
        for at in range(len(tokens) - 1):
            union = ids.get(pieces[tokens[at]] + pieces[tokens[at + 1]])
            if union is not None and scores[union] > best:
                best, place = scores[union], at
        if place < 0:
            return tokens
        tokens[place : place + 2] = [ids[pieces[tokens[place]] + pieces[tokens[place + 1]]]]


def test_tok_bin_encodes_as_llama2c_does(data_dir: Path, golden: list[tuple[str, list[int]]]) -> None:
    path = data_dir / "models/stories260k/tok512.bin"
    tokenizer, vocabulary = load_tokenizer(path), read_tok_bin(path)
    pieces = [piece.text.replace("▁", " ").encode() for piece in vocabulary.pieces]
    scores = [piece.score for piece in vocabulary.pieces]
    assert (tokenizer.vocab_size, tokenizer.bos, tokenizer.eos) == (512, 1, 2)
    story = (data_dir / "models/stories260k/greedy_200_steps.txt").read_text(encoding="utf-8")
    for text in [story, *(text for text, _ in golden)]:
        ids = tokenizer.encode(text)
        assert ids == llama2c_encode(pieces, scores, text)
        assert tokenizer.decode(ids) == text


def test_tok_bin_written_is_tok_bin_read(data_dir: Path, llama: Tokenizer, tmp_path: Path) -> None:
    original = data_dir / "models/stories260k/tok512.bin"
    write_tok_bin(tmp_path / "a.bin", read_tok_bin(original))
    assert (tmp_path / "a.bin").read_bytes() == original.read_bytes()
    write_tok_bin(tmp_path / "b.bin", llama.codec.vocabulary)
    assert load_tokenizer(tmp_path / "b.bin").fingerprint == llama.fingerprint


@pytest.mark.parametrize("kind", ["trained", "llama2"])
def test_transformers_loads_what_save_writes(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    from transformers import AutoTokenizer

    tokenizer: Tokenizer = request.getfixturevalue("small" if kind == "trained" else "llama")
    tokenizer.save(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')  # as in a model directory
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert (theirs.bos_token_id, theirs.eos_token_id) == (1, 2)
    assert theirs.pad_token_id not in (None, theirs.eos_token_id)
    assert len(theirs) == tokenizer.vocab_size
    texts = [text for text in [*TEXTS, *STORY] if "<" not in text]
    if kind == "llama2":
        texts += [text for text, _ in request.getfixturevalue("golden")]
    for text in texts:
        ids = theirs(text)["input_ids"]
        assert ids == [1, *tokenizer.encode(text)], text
        assert theirs.decode(ids, skip_special_tokens=True) == tokenizer.decode(ids)


def test_a_tokenizer_json_saves_and_loads_alike(small: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    fast = all_kinds(small, tmp_path)[2]
    fast.save(tmp_path / "again")
    again, theirs = load_tokenizer(tmp_path / "again"), AutoTokenizer.from_pretrained(tmp_path / "again")
    for text in [text for text in TEXTS if "<" not in text]:
        assert fast.encode(text) == again.encode(text) == small.encode(text)
        assert theirs(text)["input_ids"] == [1, *fast.encode(text)]
        assert fast.decode(fast.encode(text)) == text
    assert theirs.pad_token_id != theirs.eos_token_id


def test_tokens_added_to_a_tokenizer_json_count(small: Tokenizer, tmp_path: Path) -> None:
    small.save(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["added_tokens"].append({**content["added_tokens"][0], "id": 340, "content": "<pad>"})
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.vocab_size == 341
    assert tokenizer.special == {0, 1, 2, 340}


@pytest.mark.parametrize("seed", range(4))
def test_streamed_text_is_the_whole_text(small: Tokenizer, tmp_path: Path, seed: int) -> None:
    random_ = random.Random(seed)
    for tokenizer in all_kinds(small, tmp_path)[:2]:
        for _ in range(40):
            ids = [random_.choice([random_.randrange(tokenizer.vocab_size), 259, 2]) for _ in range(20)]
            decoder = StreamDecoder(tokenizer)
            assert "".join(decoder.push(id) for id in ids) + decoder.flush() == tokenizer.decode(ids)


def test_streams_never_show_half_a_character(small: Tokenizer, tmp_path: Path) -> None:
    for tokenizer in all_kinds(small, tmp_path):
        for text in [*TEXTS, "中国 🦙 the river"]:
            decoder = StreamDecoder(tokenizer)
            pushed = [decoder.push(id) for id in tokenizer.encode(text)]
            assert not any("\ufffd" in piece for piece in pushed)
            assert "".join(pushed) == text
            assert decoder.flush() == ""


@pytest.mark.parametrize(("size", "texts"), [(260, STORY), (30000, STORY), (512, []), (512, ["", "\n"])])
def test_training_that_cannot_work_is_one_line(size: int, texts: list[str]) -> None:
    with pytest.raises(BadInput) as caught:
        train_tokenizer(texts, size)
    assert "\n" not in str(caught.value)
