"""The chat format token by token: golden vectors derived by hand, the prefix property, the Jinja twin."""

from __future__ import annotations

from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from ayni.errors import BadInput
from ayni.records import Dialog, Message, message_dicts
from ayni.text.chat import answer_text, answer_tokens, render, render_prompt, render_text
from ayni.text.model_proto import BYTE, CONTROL, UNKNOWN, Piece, Vocabulary, build_model
from ayni.text.sentencepiece_codec import SentencePieceCodec
from ayni.text.tokenizer import Tokenizer, load_tokenizer, train_tokenizer

BOS, EOS, SPACE = 1, 2, 29871
INST, END_INST = [518, 25580, 29962], [518, 29914, 25580, 29962]  # ▁[ INST ]   ▁[ / INST ]


def dialog(*messages: tuple[str, str]) -> Dialog:
    return tuple(Message(role, content) for role, content in messages)


@pytest.fixture(scope="module")
def llama(data_dir: Path) -> Tokenizer:
    return load_tokenizer(data_dir / "tokenizers/llama2/tokenizer.model")


@pytest.fixture(scope="module")
def small() -> Tokenizer:
    return train_tokenizer(["the river is wide and the hill is high [INST] [/INST]", "the the is is"] * 3, 300)


def test_golden_single_turn(llama: Tokenizer) -> None:
    single = dialog(("user", " Hello "), ("assistant", "Hello world\n"))
    # Hello = 15043, world = 3186; the space before EOS is a piece of its own
    context = [BOS, *INST, 15043, *END_INST]
    sequence = render(single, llama)
    assert sequence.tokens == [*context, 15043, 3186, SPACE, EOS]
    assert sequence.mask == [False] * len(context) + [True] * 4
    assert render_prompt(single[:1], llama) == context


def test_golden_system_and_turns(data_dir: Path, llama: Tokenizer) -> None:
    """Built from SentencePiece's own pieces, not from our renderer."""
    model = str(data_dir / "tokenizers/llama2/tokenizer.model")
    encode = sentencepiece.SentencePieceProcessor(model_file=model).encode
    turns = dialog(
        ("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello!"), ("user", "Bye\n"), ("assistant", "So long.")
    )
    first = [BOS, *encode("[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi [/INST]")]
    second = [BOS, *encode("[INST] Bye [/INST]")]
    answer, farewell = [*encode("Hello!"), SPACE, EOS], [*encode("So long."), SPACE, EOS]
    assert first[4:9] == [3532, 14816, 29903, 6778, 13]  # ▁<< SY S >> <0x0A>
    expected = [*first, *answer, *second, *farewell]
    everything, last = render(turns, llama), render(turns, llama, train="last")
    assert everything.tokens == last.tokens == expected
    shape = [(first, False), (answer, True), (second, False), (farewell, True)]
    assert everything.mask == [supervised for part, supervised in shape for _ in part]
    shape[1] = (answer, False)
    assert last.mask == [supervised for part, supervised in shape for _ in part]
    assert render_prompt(turns[:-1], llama) == [*first, *answer, *second]
    assert answer_tokens(turns[:-1], "So long.", llama) == last


word = st.text(st.characters(codec="utf-8", exclude_characters="▁"), max_size=12).filter(
    lambda text: "[" not in text and "<" not in text
)


@settings(max_examples=200, deadline=None)
@given(question=word, answer=word)
def test_the_prompt_always_begins_the_finished_turn(small: Tokenizer, question: str, answer: str) -> None:
    asked = dialog(("system", question), ("user", question), ("assistant", answer), ("user", question))
    prompt, whole = render_prompt(asked, small), answer_tokens(asked, answer, small)
    assert whole.tokens[: len(prompt)] == prompt
    assert whole.mask == [False] * len(prompt) + [True] * (len(whole.tokens) - len(prompt))
    assert answer_text(whole.tokens[len(prompt) :], small) == answer.strip()


@pytest.mark.parametrize("tag", ["[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"])
@pytest.mark.parametrize("where", [0, 1, 2])
def test_smuggled_tags_are_refused(small: Tokenizer, tag: str, where: int) -> None:
    messages = [("system", "be kind"), ("user", "hi"), ("assistant", "ho"), ("user", "hi")]
    messages[where] = (messages[where][0], f"the {tag} river")
    with pytest.raises(BadInput, match=rf"messages\.{where}\.content: .*must not contain"):
        render_prompt(dialog(*messages), small)


@pytest.mark.parametrize(
    ("roles", "field"),
    [
        ("", "messages"),
        ("s", "messages"),
        ("a", "messages.0.role"),
        ("uu", "messages.1.role"),
        ("us", "messages.1.role"),
        ("ssu", "messages.1.role"),
        ("sa", "messages.1.role"),
        ("uaa", "messages.2.role"),
        ("ua", "messages.1.role"),
    ],
)
def test_roles_alternate(small: Tokenizer, roles: str, field: str) -> None:
    names = {"s": "system", "u": "user", "a": "assistant"}
    with pytest.raises(BadInput) as caught:
        render_prompt(dialog(*((names[role], "x") for role in roles)), small)
    assert caught.value.field == field


def test_a_finished_dialogue_needs_an_answer(small: Tokenizer) -> None:
    with pytest.raises(BadInput, match="not the assistant's"):
        render(dialog(("user", "hi")), small)


def test_special_tokens_in_user_text_stay_text(llama: Tokenizer) -> None:
    sequence = render(dialog(("user", "</s><s> bye"), ("assistant", "</s> no")), llama)
    assert sequence.tokens.count(BOS) == sequence.tokens.count(EOS) == 1
    assert sequence.tokens[0] == BOS
    assert sequence.tokens[-1] == EOS


def test_a_tokenizer_that_joins_the_answer_to_its_tag_is_refused() -> None:
    pieces = [Piece("<unk>", 0.0, UNKNOWN), Piece("<s>", 0.0, CONTROL), Piece("</s>", 0.0, CONTROL)]
    pieces += [Piece(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
    pieces += [Piece(text, -float(rank)) for rank, text in enumerate(["]▁", "]", "▁"])]
    model = build_model(Vocabulary(tuple(pieces), unk=0, bos=1, eos=2, pad=-1))
    with pytest.raises(BadInput, match=r"joins \[/INST\] with the answer"):
        render(dialog(("user", "a"), ("assistant", "b")), Tokenizer(SentencePieceCodec(model)))


def test_documents(llama: Tokenizer) -> None:
    sequence = render_text("Hello world", llama)
    assert sequence.tokens == [BOS, 15043, 3186, EOS]
    assert sequence.mask == [False, True, True, True]


def test_the_jinja_template_gives_the_same_ids(llama: Tokenizer, tmp_path: Path) -> None:
    from jinja2.exceptions import TemplateError
    from transformers import AutoTokenizer

    llama.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)

    def ids(messages: Dialog) -> list[int]:
        return theirs.apply_chat_template(message_dicts(messages), tokenize=True, return_dict=False)

    turns = dialog(
        ("system", " Be kind.\n"), ("user", " Hi "), ("assistant", "\n1. Hello!\n2. 中国"), ("user", "Bye\n\n"),
        ("assistant", "  So long. "), ("user", "🦙"), ("assistant", ""),
    )  # fmt: skip
    for start in (0, 1):
        for end in range(2, len(turns) + 1):
            part = turns[start:end]
            if part[-1].role == "assistant":
                assert ids(part) == render(part, llama).tokens
            elif part[-1].role == "user":
                assert ids(part) == render_prompt(part, llama)
    for bad in (dialog(("user", "[/INST] x")), dialog(("user", "a"), ("user", "b"))):
        with pytest.raises(TemplateError):
            ids(bad)
