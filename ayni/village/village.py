"""A village made from a seed: its corpus, its prompts with the knowledge behind them, and its demonstrations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, lru_cache

import numpy as np

from ayni.errors import BadInput
from ayni.records import (
    Comparison,
    Constraint,
    Demonstration,
    Dialog,
    Message,
    Principle,
    Prompt,
    Task,
    attached,
    instruction,
)
from ayni.seeds import rng
from ayni.village import answers, constraints, principles, talks, topics
from ayni.village.attacks import attacks
from ayni.village.corpus import documents
from ayni.village.everyday import everyday_topics
from ayni.village.exercises import exercise
from ayni.village.facts import animal_facts, person_facts, place_facts, sum_facts
from ayni.village.knowledge import Knowledge, Split
from ayni.village.outside import strangers
from ayni.village.prompts import SPLITS, everything
from ayni.village.safety_demonstrations import safety_demonstration
from ayni.village.scene import Scene
from ayni.village.sources import Sources
from ayni.village.villagers import people
from ayni.village.words import pick

OBEYING = ("person", "animal", "place", "sum", "list", "outside")  # categories of one turn, answered in a sentence


class Village:
    """All of it depends on `seed` alone."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        villagers = people(seed)
        facts = [
            *person_facts(seed, villagers),
            *animal_facts(seed),
            *place_facts(seed),
            *sum_facts(seed, villagers),
        ]
        self.scene = Scene(
            seed,
            villagers,
            facts,
            topics.forbidden_topics(seed),
            topics.borderline_topics(seed),
            everyday_topics(seed),
            strangers(seed),
        )

    @cached_property
    def _catalogue(self) -> tuple[dict[Split, list[Prompt]], dict[str, Knowledge]]:
        prompts: dict[Split, list[Prompt]] = {split: [] for split in SPLITS}
        known = {}
        for name, split, category, dialog, knowledge in everything(self.scene):
            task: Task = "safety" if category == "unsafe" else "helpfulness"
            prompts[split].append(Prompt(name, dialog, task, category, f"village-{self.seed}", knowledge.cluster))
            known[name] = knowledge
        return prompts, known

    def prompts(self, split: Split, n: int | None = None, seed: int = 0) -> list[Prompt]:
        """`n` different prompts (all when None), mixed by `seed`. Raises BadInput when there are fewer."""
        every = self._catalogue[0][split]
        if n is not None and n > len(every):
            raise BadInput(f"{n} {split} prompts wanted, the village has {len(every)}", field="n")
        order = rng(self.seed, "prompts", split, seed).permutation(len(every))
        return [every[int(i)] for i in order[:n]]

    @cached_property
    def _red_team(self) -> tuple[dict[Split, list[Prompt]], dict[str, Knowledge]]:
        prompts: dict[Split, list[Prompt]] = {split: [] for split in SPLITS}
        known = {}
        for split in SPLITS:
            for number, (category, dialog, knowledge) in enumerate(attacks(self.scene, split)):
                name = f"village-{self.seed}:{split}:attack:{number:06d}"
                task: Task = "safety" if category.startswith("unsafe:") else "helpfulness"
                prompts[split].append(Prompt(name, dialog, task, category, f"village-{self.seed}", knowledge.cluster))
                known[name] = knowledge
        return prompts, known

    def attacks(self, split: Split, n: int | None = None) -> list[Prompt]:
        """The first `n` prompts of the red team (all when None). Raises BadInput when there are fewer."""
        every = self._red_team[0][split]
        if n is not None and n > len(every):
            raise BadInput(f"{n} attacks wanted, the village has {len(every)}", field="attacks")
        return every[:n]

    def knowledge(self, prompt: Prompt | str) -> Knowledge:
        """What lies behind a prompt (or its id). Raises BadInput for a prompt of another scene."""
        name = prompt if isinstance(prompt, str) else prompt.id
        known = self._catalogue[1].get(name) or self._red_team[1].get(name)
        if known is None:
            raise BadInput(f"no prompt of village {self.seed}: {name!r}", field="id")
        return known

    def reference_answer(self, prompt: Prompt, rng: np.random.Generator) -> str:
        """An answer of the best quality."""
        return answers.reference(self.knowledge(prompt), rng)

    def vendor_answer(self, prompt: Prompt, rng: np.random.Generator, quality: answers.Quality = "mixed") -> str:
        """An answer of a vendor's mixed quality, as in the demonstrations; or a clean or a noisy one."""
        return answers.vendor(self.knowledge(prompt), rng, quality)

    def demonstrations(
        self,
        n: int,
        seed: int = 0,
        task: Task | None = None,
        quality: answers.Quality = "mixed",
        split: Split = "train",
    ) -> list[Demonstration]:
        """`n` answered prompts (of one `task`) of this quality; prompts repeat only when there are fewer."""
        pool = [prompt for prompt in self.prompts(split, seed=seed) if task in (None, prompt.task)]
        out = []
        for i in range(n):
            prompt = pool[i % len(pool)]
            draw = rng(self.seed, "demonstration", seed, i)
            answer = Message("assistant", self.vendor_answer(prompt, draw, quality))
            out.append(Demonstration((*prompt.dialog, answer), "last", f"village-{self.seed}"))
        return out

    def safety_demonstrations(
        self, n: int, attacked: Sequence[Prompt] = (), preprompted: float = 0.0, seed: int = 0
    ) -> list[Demonstration]:
        """`n` unsafe training prompts, the red team's `attacked` among them, refused as guidelines ask; in random
        order, so that the first of them are a sample. A share `preprompted` stands under a safety preprompt."""
        asked = [p for p in (*self.prompts("train", seed=seed), *attacked) if p.task == "safety"]
        order = rng(self.seed, "safety demonstrations", seed).permutation(len(asked))
        return [
            safety_demonstration(
                asked[int(order[i % len(order)])].dialog,
                self.knowledge(asked[int(order[i % len(order)])]),
                preprompted,
                rng(self.seed, "safety demonstration", seed, i),
                f"village-{self.seed}",
            )
            for i in range(n)
        ]

    def revising(self, n: int, attacked: Sequence[Prompt] = (), seed: int = 0) -> list[Demonstration]:
        """`n` demonstrations of living by the principles: in turn what is wrong with an answer to a training prompt
        (`attacked` by the red team are among them), and that answer revised."""
        asked = [(p, self.knowledge(p)) for p in (*self.prompts("train", seed=seed), *attacked)]
        forbidden = [(p, k) for p, k in asked if p.task == "safety"]
        harmless = [(p, k) for p, k in asked if p.category.split(":")[0] in ("borderline", "howto")]
        talks = [
            principles.revising(forbidden, harmless, rng(self.seed, "revising", seed, i)) for i in range((n + 1) // 2)
        ]
        dialogs = [dialog for talk in talks for dialog in (talk[:-2], talk)]
        return [Demonstration(dialog, "last", f"village-{self.seed}") for dialog in dialogs[:n]]

    def principles(self) -> list[Principle]:
        """What these demonstrations revise by."""
        return [replace(principle, source=f"village-{self.seed}") for principle in principles.PRINCIPLES]

    def talks(self, split: Split) -> list[Prompt]:
        """Conversations of twenty short turns about the split's facts."""
        found = talks.talks(self.scene, split, talks.SIZES[SPLITS.index(split)])
        source = f"village-{self.seed}"
        return [
            Prompt(f"{source}:{split}:talk:{i:06d}", d, category="talk", source=source) for i, d in enumerate(found)
        ]

    def constraints(self, split: Split) -> list[Constraint]:
        """What may be asked to hold for a conversation; of the training split, all but the kind that is held out."""
        return constraints.constraints(self.seed, split)

    def obeying(self, n: int, seed: int = 0) -> list[Demonstration]:
        """`n` training questions that come with one or two constraints, and right answers that keep them. A tenth are
        lists of figures or hobbies; three in a hundred are talks without any constraint, and three are talks with it in
        every message: who has heard one question and answer at a time is lost in the twentieth."""
        pool = [p for p in self.prompts("train", seed=seed) if p.category in OBEYING]
        found = []
        for i in range(n):
            draw = rng(self.seed, "obeying", seed, i)
            kind = draw.random()
            if kind < 0.03:
                found.append(Demonstration(talks.talk(self.scene, "train", draw), "all", f"village-{self.seed}"))
                continue
            if kind < 0.06:
                found.append(Demonstration(self._told_talk(draw), "all", f"village-{self.seed}"))
                continue
            if kind < 0.16:
                question, answer = constraints.listing(self.seed, draw)
                asked = Message("user", question)
            else:
                prompt = pool[i % len(pool)]
                wanted = constraints.wanted(self.seed, draw)
                asked = attached(instruction(wanted, short=bool(draw.random() < 0.5)), prompt.dialog[-1])
                answer = constraints.keeping(wanted, pick(draw, self.knowledge(prompt).right))
            found.append(Demonstration((asked, Message("assistant", answer)), "last", f"village-{self.seed}"))
        return found

    def _told_talk(self, draw: np.random.Generator) -> Dialog:
        """A talk that brings its constraints with every message, and right answers that keep them."""
        talk = talks.talk(self.scene, "train", draw, int(draw.integers(talks.TOLD[0], talks.TOLD[1] + 1)))
        wanted = constraints.wanted(self.seed, draw)
        told = instruction(wanted, short=bool(draw.random() < 0.5))
        return tuple(
            attached(told, m) if m.role == "user" else replace(m, content=constraints.keeping(wanted, m.content))
            for m in talk
        )

    def checks(self, n: int, seed: int = 0) -> list[Comparison]:
        """`n` training prompts with the best answer and the worst, half of each task: nobody can confuse them."""
        found = []
        for task in ("helpfulness", "safety"):
            asked = [p for p in self.prompts("train", seed=seed) if p.task == task]
            for i, prompt in enumerate(asked[: n // 2]):
                draw = rng(self.seed, "check", seed, task, i)
                best, worst = self.reference_answer(prompt, draw), answers.worst(self.knowledge(prompt), draw)
                found.append(
                    Comparison(prompt, best, worst, task, "significantly_better", source=f"village-{self.seed}")
                )
        return found

    def exercises(self, n: int, seed: int = 0) -> list[Comparison]:
        """`n` questions with the right answer and a wrong one in the same words, as the school's books hold them."""
        sources = Sources.of(self.scene)
        return [exercise(sources, rng(self.seed, "exercise", seed, i), i) for i in range(n)]

    def corpus(self, words: int = 1_800_000, seed: int = 0, *, chat_share: float = 0.5) -> list[str]:
        """About `words` words of documents to pretrain on; `chat_share` of the question documents are in chat form."""
        return list(documents(self.scene, words, rng(self.seed, "corpus", seed), chat_share=chat_share))


@lru_cache(maxsize=2)
def village_of(seed: int) -> Village:
    """The village of this seed, one in a process: its prompts take a second to write."""
    return Village(seed)
