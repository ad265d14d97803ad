"""Looking for an answer while it is written: partial answers are valued, and only the promising ones go on.

A step is a sentence, or a number of tokens. Both searches draw continuations of a partial answer, and ask a guide (a
reward model, or PPO's critic) what each is worth:

- beam: of every prompt `width` partial answers are kept, each goes on in `expand` ways, and the best `width` of these
  stay; those that have ended stay as they are and compete (Snell et al. 2024, §5.2; Tree of Thoughts' breadth first).
- tree: the most promising partial answer of all goes on, in `expand` ways, until the prompt's budget of tokens is
  spent; what was left behind may be taken up again (Yao et al. 2023, §3; best first, theirs goes back from dead ends).

Every token that a model reads or draws is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from ayni.config import Config, Field
from ayni.errors import BadInput
from ayni.records import Prompt, Sample
from ayni.rollout.engine import Drawn, Engine, Request, as_samples, check_room
from ayni.rollout.sampling import Sampling
from ayni.seeds import seed_of
from ayni.text.chat import render_prompt
from ayni.text.tokenizer import Tokenizer

Guide = Callable[[Sequence[Prompt], Sequence[Sequence[Sample]]], Sequence[float]]
"""What partial and whole answers are worth, those of every prompt in order; a partial one is cut off."""
ENDS = (".", "!", "?", "\n")


class Search(Config):
    """How to look for an answer. With `expand` 1, and of a beam `width` 1, nothing is chosen: it is sampling."""

    how: Literal["beam", "tree"] = "beam"
    width: int = Field(2, ge=1, le=1 << 10, description="of a beam: partial answers that are kept")
    expand: int = Field(2, ge=1, le=1 << 10, description="continuations of each")
    step: int = Field(32, ge=1, description="the most tokens of a step")
    sentences: bool = Field(True, description="a step ends with its sentence, too")
    budget: int = Field(
        1000,
        ge=1,
        description="of a tree: tokens of a prompt, read and drawn by all models, after which nothing grows any more",
    )

    def __str__(self) -> str:
        ways = f"{self.width}×{self.expand}" if self.how == "beam" else f"{self.expand} ways, {self.budget} tokens"
        return f"{self.how} {ways}"


@dataclass
class Spent:
    """Tokens that one prompt cost: read by the policy (its prompt, anew with every continuation), drawn by it, and read
    by those who score."""

    read: int = 0
    drawn: int = 0
    scored: int = 0

    @property
    def total(self) -> int:
        return self.read + self.drawn + self.scored


class Found(NamedTuple):
    """The answers of a prompt that a search came upon, what its guide said of them, and what they cost."""

    samples: list[Sample]
    values: list[float]
    spent: Spent


@dataclass(frozen=True)
class _Node:
    """A partial answer; `left`: how many tokens it may go on for, 0 where it has ended."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    left: int
    value: float = 0.0


def search(
    engine: Engine,
    prompts: Sequence[Prompt],
    guide: Guide,
    settings: Search,
    *,
    sampling: Sampling,
    seed: int,
    readers: int = 1,
) -> list[Found]:
    """What a search finds for every prompt: at least one answer. `readers`: how many models the guide asks.

    What is drawn depends on (seed, prompt id, how many continuations the prompt had before) alone. The engine's ranks
    share the drawing; all of them find the same.
    """
    if sampling.repetition_penalty != 1:
        what = "a search draws without it: a step does not know what the answer holds already"
        raise BadInput(what, field="repetition_penalty", fix="leave out the penalty, or the search")
    trees = [_Tree(prompt, engine, sampling) for prompt in prompts]
    for i, tree in enumerate(trees):
        check_room(len(tree.head), engine.context, f"prompt {i}")
    stops = sentence_ends(engine.tokenizer) if settings.sentences else ()
    grower = _Grower(engine, guide, settings, sampling, stops, seed, readers)
    if settings.how == "beam":
        grower.grow([(tree, tree.root, settings.width * settings.expand, settings.step) for tree in trees])
        while going := [tree for tree in trees if tree.prune(settings.width)]:
            grower.grow(
                (tree, node, settings.expand, settings.step) for tree in going for node in tree.take(settings.width)
            )
    else:
        grower.grow([(tree, tree.root, settings.expand, settings.step) for tree in trees])
        while going := [tree for tree in trees if tree.open and tree.spent.total < settings.budget]:
            grower.grow((tree, node, settings.expand, settings.step) for tree in going for node in tree.take(1))
        # with its budget spent before any answer ended, the best partial one is written to its end
        grower.stops = ()
        grower.grow((tree, node, 1, node.left) for tree in trees if not tree.done for node in tree.take(1))
    return [tree.found(engine) for tree in trees]


class _Tree:
    """The partial answers of one prompt: `open` ones may go on, `done` ones have ended or are as long as may be."""

    def __init__(self, prompt: Prompt, engine: Engine, sampling: Sampling) -> None:
        self.prompt, self.sampling = prompt, sampling
        self.head = tuple(render_prompt(prompt.dialog, engine.tokenizer))
        self.root = _Node((), (), min(sampling.max_tokens, engine.context - len(self.head)))
        self.open: list[_Node] = []
        self.done: list[_Node] = []
        self.spent = Spent()
        self.count = 0  # continuations so far: each has random numbers of its own

    def add(self, nodes: Iterable[_Node]) -> None:
        for node in nodes:
            # two ways to the same words are one
            if all(node.tokens != other.tokens for other in (*self.open, *self.done)):
                (self.open if node.left else self.done).append(node)

    def take(self, count: int) -> list[_Node]:
        """The most promising of those that may go on, taken away."""
        self.open.sort(key=lambda node: -node.value)
        taken, self.open = self.open[:count], self.open[count:]
        return taken

    def prune(self, width: int) -> bool:
        """Leaves those that may go on and are among the best `width` of all; whether there are any."""
        best = sorted([*self.done, *self.open], key=lambda node: -node.value)[:width]
        self.open = [node for node in best if node.left]
        return bool(self.open)

    def sample(self, node: _Node, engine: Engine) -> Sample:
        request = Request(self.head, (0,), self.sampling)
        return as_samples(engine, [self.prompt], [request], [[Drawn([*node.tokens], [*node.logprobs])]])[0][0]

    def found(self, engine: Engine) -> Found:
        return Found([self.sample(n, engine) for n in self.done], [n.value for n in self.done], self.spent)


@dataclass
class _Grower:
    """Draws and values continuations."""

    engine: Engine
    guide: Guide
    settings: Search
    sampling: Sampling
    stops: tuple[int, ...]
    seed: int
    readers: int

    def grow(self, asked: Iterable[tuple[_Tree, _Node, int, int]]) -> None:
        """So many continuations of a node, of at most so many tokens, for each (tree, node, count, step)."""
        wanted = list(asked)
        requests = []
        for tree, node, count, step in wanted:
            seeds = tuple(seed_of(self.seed, tree.prompt.id, "search", tree.count + k) for k in range(count))
            tree.count += count
            sampling = replace(self.sampling, max_tokens=min(step, node.left))
            requests.append(Request((*tree.head, *node.tokens), seeds, sampling, self.stops))
        if not requests:
            return
        ranks = self.engine.ranks
        drawn = ranks.gather(self.engine.generate(ranks.share(requests)))
        grown: list[tuple[_Tree, list[_Node]]] = []
        for (tree, node, _, _), request, answers in zip(wanted, requests, drawn, strict=True):
            tree.spent.read += len(request.tokens)
            tree.spent.drawn += sum(len(answer.tokens) for answer in answers)
            grown.append((tree, list(dict.fromkeys(self._after(node, answer) for answer in answers))))
        groups = [[tree.sample(node, self.engine) for node in nodes] for tree, nodes in grown]
        values = iter(self.guide([tree.prompt for tree, _ in grown], groups))
        for tree, nodes in grown:
            tree.spent.scored += self.readers * sum(len(tree.head) + len(node.tokens) for node in nodes)
            tree.add(replace(node, value=next(values)) for node in nodes)

    def _after(self, node: _Node, answer: Drawn) -> _Node:
        ended = answer.tokens[-1] == self.engine.tokenizer.eos
        left = 0 if ended else node.left - len(answer.tokens)
        return _Node((*node.tokens, *answer.tokens), (*node.logprobs, *answer.logprobs), left)


def sentence_ends(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The tokens with which a sentence ends: those whose text does."""
    return tuple(i for i in range(tokenizer.vocab_size) if tokenizer.decode([i]).rstrip(" ").endswith(ENDS))
