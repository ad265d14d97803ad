"""`ayni chat`: a conversation in the terminal, streamed; or one turn per line from a pipe.

What the model says is shown with its control characters taken out, so no text can drive the terminal.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from ayni.cli import say
from ayni.cli.choosing import Choice
from ayni.cli.generate import language_engine
from ayni.cli.stages import language_model_of
from ayni.errors import AyniError, BadInput
from ayni.introduction import read_introduction
from ayni.records import Dialog, Message, Prompt
from ayni.reward.choosing import Chooser
from ayni.rollout.engine import Engine, stream
from ayni.rollout.sampling import Sampling
from ayni.seeds import seed_of
from ayni.text.chat import render_prompt

HELP = "/system TEXT sets the system message, /undo takes a turn back, /clear starts anew, /quit ends (Ctrl-D too)"


def chat(
    model: Path,
    system: str,
    choice: Choice,
    temperature: float,
    top_p: float,
    max_tokens: int,
    seed: int,
) -> None:
    choice.check()
    engine = language_engine(model)
    chooser = choice.chooser(engine)
    talk = Conversation(engine, Sampling(temperature, top_p, max_tokens), seed, system, chooser)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # Ctrl-C stops an answer, not the talk
    try:
        if sys.stdin.isatty():
            import readline  # noqa: F401  (line editing and history for input())

            greet(model)
            talk.hold(_asked)
        else:
            lines = iter(sys.stdin)
            talk.hold(lambda: next(lines, None))
    finally:
        signal.signal(signal.SIGINT, before)


def greet(model: Path) -> None:
    """Who one talks to, what it knows, and how to begin."""
    introduction = read_introduction(language_model_of(model))
    say(f"{model}: {HELP}")
    if introduction.about:
        say(f"it knows {_harmless(introduction.about)}")
    for question in introduction.ask:
        say(f"  try: {_harmless(question)}")


def _asked() -> str | None:
    """A line from the person, "" after Ctrl-C, None after Ctrl-D."""
    try:
        return input("\n\x01\x1b[1m\x02you>\x01\x1b[0m\x02 ")
    except EOFError:
        print()
        return None
    except KeyboardInterrupt:
        print()
        say("Ctrl-D or /quit ends")
        return ""


class Conversation:
    """The turns so far. `hold` reads lines until there are none; an answer goes to stdout, all else to stderr."""

    def __init__(
        self,
        engine: Engine,
        sampling: Sampling,
        seed: int,
        system: str,
        chooser: Chooser | None,
    ) -> None:
        self.engine, self.sampling, self.seed = engine, sampling, seed
        self.system, self.chooser = system, chooser
        self.turns: list[Message] = []
        self.count = 0  # answers so far: each has random numbers of its own

    def hold(self, next_line: Callable[[], str | None]) -> None:
        while (line := next_line()) is not None:
            text = line.strip()
            if text in ("/quit", "/exit"):
                return
            if text.startswith("/"):
                self.command(*text[1:].partition(" ")[::2])
            elif text:
                self.answer(text)

    def command(self, name: str, rest: str) -> None:
        if name == "clear":
            self.turns = []
        elif name == "system":
            self.system, self.turns = rest.strip(), []
        elif name == "undo":
            self.turns = self.turns[:-2]
        else:
            say(HELP)

    def answer(self, text: str) -> None:
        """One answer, streamed to stdout; what Ctrl-C cut off counts as said."""
        self.turns.append(Message("user", text))
        answer = ""
        try:
            dialog = self.fitting()
            for piece in self.chosen(dialog, self.chooser) if self.chooser is not None else self.streamed(dialog):
                answer += piece
                sys.stdout.write(_harmless(piece))
                sys.stdout.flush()
        except AyniError as error:
            self.turns.pop()
            say(str(error))
            return
        except KeyboardInterrupt:
            say("(stopped)")
        print(flush=True)
        self.count += 1
        self.turns.append(Message("assistant", answer.strip()))

    def fitting(self) -> Dialog:
        """The dialogue that fits the model's context with room to answer; the oldest turns are forgotten first."""
        head = (Message("system", self.system),) if self.system else ()
        context = self.engine.context
        room = min(self.sampling.max_tokens, context // 4)
        while True:
            dialog = (*head, *self.turns)
            length = len(render_prompt(dialog, self.engine.tokenizer))
            if length + room <= context:
                return dialog
            if len(self.turns) == 1:
                raise BadInput(f"that is {length} tokens, the model reads {context}", fix="say it shorter")
            del self.turns[:2]
            say("(the oldest turn is forgotten: the model's context is full)")

    def streamed(self, dialog: Dialog) -> Iterator[str]:
        seed = seed_of(self.seed, "chat", self.count)
        return stream(self.engine, dialog, sampling=self.sampling, seed=seed)

    def chosen(self, dialog: Dialog, chooser: Chooser) -> Iterator[str]:
        """The best of several whole answers by the reward, or by safety where an answer is unsafe."""
        prompt = Prompt(f"chat-{self.count}", dialog)
        ((sample, score, scores, spent),) = chooser(self.engine, [prompt], sampling=self.sampling, seed=self.seed)
        rest = f"the others {min(scores):.2f} and up" if len(scores) > 1 else "no other"
        say(f"({chooser.name}: {score:.2f}; {rest}; {spent.total} tokens)")
        yield sample.text


def _harmless(text: str) -> str:
    return "".join(c for c in text if c.isprintable() or c in "\n\t")
