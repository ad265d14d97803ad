"""The Llama 2 chat format (Meta's release; departure 15): the one place where a dialogue becomes tokens and a mask.

    finished turn:  BOS + enc("[INST] " + user.strip() + " [/INST] " + answer.strip() + " ") + EOS
    open turn:      BOS + enc("[INST] " + user.strip() + " [/INST]")
    cut-off turn:   BOS + enc("[INST] " + user.strip() + " [/INST] " + answer.lstrip()), the last of a dialogue only
    system message: first user content := "<<SYS>>\\n" + system + "\\n<</SYS>>\\n\\n" + user

Turns are encoded apart and their tokens joined, so each has its own BOS, dummy prefix and EOS. As in Meta's code a
finished turn is encoded in one piece, so its answer starts with "▁" and a lone "▁" stands before EOS: the
answer's tokens are enc(" answer ") as they fall inside the turn, and a model trained on them samples that "▁" too.
`answer_text` takes the two spaces off again. A sample that lacks the last "▁" is as good; it is kept as sampled and
never rendered anew for training.

An answer that was cut off at the token limit stays cut: rendered from its text it ends where it ended, without the
space and the EOS that it never had, so a reward model trains on it at the column where it scores it. (Only half a
character at the cut is lost with the tokens.) Once a dialogue has gone on, a cut answer is context like any other.

The open turn's tokens begin the finished turn's, always: pieces never cross a space from the left, which holds
for every SentencePiece model with Llama 2's settings and every tokenizer.json that splits at spaces first. For any
other tokenizer rendering raises, because a policy would be trained on other tokens than it sees when sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ayni.errors import BadInput
from ayni.records import Comparison, Dialog, Finished, Message, TokenSequence
from ayni.text.tokenizer import Tokenizer

TAGS = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")


def check_dialog(dialog: Dialog, *, last: Literal["user", "assistant"] | None = None) -> None:
    """Raises BadInput (field `messages.N`) unless the dialogue can be rendered.

    An optional system message, then user and assistant in turn, the last from `last` if given; no chat tags.
    """
    if not dialog:
        raise BadInput("the dialogue is empty", field="messages")
    for index, message in enumerate(dialog):
        for tag in TAGS:
            if tag in message.content:
                raise BadInput(f"a message must not contain {tag}", field=f"messages.{index}.content")
    start = 1 if dialog[0].role == "system" else 0
    for index, message in enumerate(dialog[start:]):
        expected = "assistant" if index % 2 else "user"
        if message.role != expected:
            raise BadInput(
                f"the role is {message.role} where {expected} is due", field=f"messages.{start + index}.role"
            )
    if len(dialog) == start:
        raise BadInput("a system message alone is no dialogue", field="messages")
    if last is not None and dialog[-1].role != last:
        raise BadInput(f"the last message is not the {last}'s", field=f"messages.{len(dialog) - 1}.role")


def _turns(dialog: Dialog) -> list[tuple[str, str | None]]:
    """(user text with the system block folded in, answer or None) for every turn."""
    system = ""
    if dialog[0].role == "system":
        system, dialog = f"<<SYS>>\n{dialog[0].content}\n<</SYS>>\n\n", dialog[1:]
    contents: list[str | None] = [message.content for message in dialog] + [None] * (len(dialog) % 2)
    return [
        (f"{system if turn == 0 else ''}{user or ''}".strip(), answer)
        for turn, (user, answer) in enumerate(zip(contents[::2], contents[1::2], strict=True))
    ]


def _open_turn(user: str, tokenizer: Tokenizer) -> list[int]:
    return [tokenizer.bos, *tokenizer.encode(f"[INST] {user} [/INST]")]


def _answered_turn(user: str, answer: str, tokenizer: Tokenizer, cut: bool = False) -> tuple[list[int], int]:
    """(tokens with BOS and, unless the answer was cut off, EOS; how many of them are context)."""
    context = _open_turn(user, tokenizer)
    said, end = (answer.lstrip(), []) if cut else (f"{answer.strip()} ", [tokenizer.eos])
    joint = [tokenizer.bos, *tokenizer.encode(f"[INST] {user} [/INST] {said}"), *end]
    if joint[: len(context)] != context:
        raise BadInput("this tokenizer joins [/INST] with the answer after it", fix="use one that splits at spaces")
    return joint, len(context)


def render(
    dialog: Dialog,
    tokenizer: Tokenizer,
    train: Literal["all", "last"] = "all",
    finished: Finished | None = None,
) -> TokenSequence:
    """A dialogue that ends with an answer. The mask is True on answer tokens and their EOS, of all or the last turn.

    A last answer whose `finished` is "length" stays cut: nothing stands after it. Raises BadInput when roles do not
    alternate, a tag is smuggled in, or the last message is not the assistant's.
    """
    check_dialog(dialog, last="assistant")
    turns = _turns(dialog)
    tokens: list[int] = []
    mask: list[bool] = []
    for index, (user, answer) in enumerate(turns):
        last = index == len(turns) - 1
        turn, context = _answered_turn(user, answer or "", tokenizer, cut=last and finished == "length")
        supervised = train == "all" or last
        tokens += turn
        mask += [False] * context + [supervised] * (len(turn) - context)
    return TokenSequence(tokens, mask)


def render_prompt(dialog: Dialog, tokenizer: Tokenizer) -> list[int]:
    """The tokens before an answer: finished turns, then the open one, which ends in [/INST]. Errors as `render`."""
    check_dialog(dialog, last="user")
    *before, (user, _) = _turns(dialog)
    tokens: list[int] = []
    for asked, answer in before:
        tokens += _answered_turn(asked, answer or "", tokenizer)[0]
    return tokens + _open_turn(user, tokenizer)


def span_of(text: str, dialog: Dialog, tokenizer: Tokenizer) -> tuple[int, int]:
    """(first, last + 1) token of `text` in the first turn of the rendered dialogue; ValueError where it is not there.

    `text` begins and ends at spaces or at an end of the message, as an instruction before a question does.
    """
    user, _ = _turns(dialog)[0]
    before, found, _ = f"[INST] {user}".partition(text)
    if not found:
        raise ValueError(f"{text!r} is not in the first turn")
    begin, end = (1 + len(tokenizer.encode(part)) for part in (before.rstrip(" "), before + text))
    return begin, end


def answer_tokens(dialog: Dialog, answer: str, tokenizer: Tokenizer, finished: Finished | None = None) -> TokenSequence:
    """The dialogue with `answer` as its last turn, only the answer supervised; `render_prompt(dialog)` begins it."""
    return render((*dialog, Message("assistant", answer)), tokenizer, train="last", finished=finished)


def compared_tokens(c: Comparison, tokenizer: Tokenizer) -> tuple[TokenSequence, TokenSequence]:
    """The chosen and the rejected answer after their prompt, each as `answer_tokens` has it."""
    return (
        answer_tokens(c.prompt.dialog, c.chosen, tokenizer, c.finished_chosen),
        answer_tokens(c.prompt.dialog, c.rejected, tokenizer, c.finished_rejected),
    )


def answer_text(tokens: Sequence[int], tokenizer: Tokenizer) -> str:
    """The text of sampled answer tokens, without the format's one space before it and, where EOS ends it, after it.

    A model can spell a chat tag; text never holds one, so tags are taken out (the tokens keep them).
    """
    text = tokenizer.decode(tokens)
    while any(tag in text for tag in TAGS):
        for tag in TAGS:
            text = text.replace(tag, "")
    text = text.removeprefix(" ")
    # of an answer that was cut off the last space is its own: the next word stood after it
    return text.removesuffix(" ") if tokens and tokens[-1] == tokenizer.eos else text


def render_text(text: str, tokenizer: Tokenizer) -> TokenSequence:
    """A document for pretraining: BOS + text + EOS, all supervised but BOS."""
    tokens = [tokenizer.bos, *tokenizer.encode(text), tokenizer.eos]
    return TokenSequence(tokens, [False] + [True] * (len(tokens) - 1))
