"""Search at inference against slow, obvious ones; its budget, its counts, and who guides it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import policy, prompts, reward_model, tokenizer

from ayni.errors import BadInput
from ayni.model.role import Role
from ayni.records import Prompt, Sample
from ayni.reward.choosing import Chooser, chooser_of, values_of
from ayni.reward.combine import CombinedReward
from ayni.reward.model import RewardModel
from ayni.rollout.engine import Request, rollout, sampled_sequence
from ayni.rollout.local import LocalEngine
from ayni.rollout.sampling import Sampling
from ayni.rollout.search import Search, _Node, _Tree, search, sentence_ends
from ayni.seeds import seed_of
from ayni.text.chat import render_prompt
from ayni.train.batch import batch_of

EOS = tokenizer().eos
SAMPLING = Sampling(1.0, 1.0, 20)
STOPS = tuple(range(256, tokenizer().vocab_size, 3))  # in fp64, and of a vocabulary that ends no sentence


def scorer(seed: int = 1, context: int = 96) -> RewardModel:
    return RewardModel(Role(reward_model(seed, context=context, dtype=torch.float64)), tokenizer(), "judge")


def guide(asked: Sequence[Prompt], groups: Sequence[Sequence[Sample]]) -> list[float]:
    return scorer().score_tokens([[*s.prompt_tokens, *s.tokens] for group in groups for s in group]).tolist()


def speaker() -> LocalEngine:
    return policy(dtype=torch.float64)


@pytest.fixture(autouse=True)
def stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ayni.rollout.search.sentence_ends", lambda tokenizer: STOPS)


def found(settings: Search, asked: list[Prompt], engine: Any = None) -> list[dict[tuple[int, ...], float]]:
    """By prompt: the answers that were found, and their values."""
    results = search(engine or speaker(), asked, guide, settings, sampling=SAMPLING, seed=5)
    return [{s.tokens: v for s, v in zip(r.samples, r.values, strict=True)} for r in results]


class Slow:
    """One prompt's search, one continuation at a time."""

    def __init__(self, prompt: Prompt, settings: Search) -> None:
        self.engine, self.prompt, self.settings, self.count = speaker(), prompt, settings, 0
        self.head = tuple(render_prompt(prompt.dialog, tokenizer()))
        self.cost = 0

    def grow(self, prefix: tuple[int, ...], ways: int) -> dict[tuple[int, ...], float]:
        children: dict[tuple[int, ...], float] = {}
        self.cost += len(self.head) + len(prefix)
        for _ in range(ways):
            seed = seed_of(5, self.prompt.id, "search", self.count)
            self.count += 1
            sampling = replace(SAMPLING, max_tokens=min(self.settings.step, 20 - len(prefix)))
            ((drawn,),) = self.engine.generate([Request((*self.head, *prefix), (seed,), sampling)])
            step = list(drawn.tokens)
            if self.settings.sentences and (ends := [i for i, token in enumerate(step) if token in STOPS]):
                step = step[: ends[0] + 1]
            child = (*prefix, *step)
            self.cost += len(step)
            if child not in children:
                self.cost += len(self.head) + len(child)
            children[child] = float(scorer().score_tokens([[*self.head, *child]])[0])
        return children

    def ended(self, answer: tuple[int, ...]) -> bool:
        return answer[-1] == EOS or len(answer) == 20

    def beam(self) -> dict[tuple[int, ...], float]:
        known = self.grow((), self.settings.width * self.settings.expand)
        while True:
            best = sorted(known, key=lambda answer: -known[answer])[: self.settings.width]
            known = {a: v for a, v in known.items() if self.ended(a)}  # none that ended is forgotten
            going = [answer for answer in best if not self.ended(answer)]
            if not going:
                return known
            for answer in going:
                known |= self.grow(answer, self.settings.expand)

    def tree(self) -> dict[tuple[int, ...], float]:
        known = self.grow((), self.settings.expand)
        taken: set[tuple[int, ...]] = set()
        while self.cost < self.settings.budget:
            going = [a for a in known if not self.ended(a) and a not in taken]
            if not going:
                break
            taken.add(best := max(going, key=lambda a: known[a]))
            known |= self.grow(best, self.settings.expand)
        return {a: v for a, v in known.items() if self.ended(a)}


@pytest.mark.parametrize("sentences", [True, False])
@pytest.mark.parametrize(("width", "expand", "step"), [(2, 2, 6), (1, 3, 4), (3, 2, 5), (2, 1, 20)])
def test_the_beam_is_the_slow_one(width: int, expand: int, step: int, sentences: bool) -> None:
    settings, asked = Search(width=width, expand=expand, step=step, sentences=sentences), prompts(4)
    for prompt, ours in zip(asked, found(settings, asked), strict=True):
        theirs = Slow(prompt, settings).beam()
        assert ours.keys() == theirs.keys()
        for answer, value in ours.items():
            assert value == pytest.approx(theirs[answer], abs=1e-5)


@pytest.mark.parametrize("budget", [400, 1500])
def test_the_tree_is_the_slow_one_and_costs_what_it_counts(budget: int) -> None:
    settings, asked = Search(how="tree", expand=2, step=6, budget=budget), prompts(4)
    results = search(speaker(), asked, guide, settings, sampling=SAMPLING, seed=5)
    whole = 0
    for prompt, ours in zip(asked, results, strict=True):
        slow = Slow(prompt, settings)
        theirs = slow.tree()
        if theirs:
            whole += 1
            assert {s.tokens for s in ours.samples} == theirs.keys()
            assert ours.spent.total == slow.cost
        else:  # nothing had ended: one partial answer was written to its end
            assert len(ours.samples) == 1
            assert ours.spent.total > slow.cost
        # the budget is passed by one expansion at most, of 2 ways
        assert ours.spent.total < budget + 3 * (len(slow.head) + 20) + 2 * 20
    assert whole >= 2


def test_a_larger_budget_finds_no_worse_an_answer() -> None:
    asked, best = prompts(6), []
    for budget in (300, 1200, 4000):
        answers = found(Search(how="tree", step=5, budget=budget), asked)
        best.append([max(each.values()) for each in answers])
    assert all(few <= many + 1e-9 for few, many in zip(best[1], best[2], strict=True))
    assert sum(best[2]) > sum(best[0])


def test_prompts_are_searched_as_if_alone() -> None:
    asked = prompts(5)
    for settings in (Search(step=6), Search(how="tree", step=6, budget=500)):
        together = found(settings, asked)
        alone = [found(settings, [prompt])[0] for prompt in asked]
        assert [each.keys() for each in together] == [each.keys() for each in alone]


def test_a_search_without_a_choice_costs_one_answer() -> None:
    for settings in (Search(width=1, expand=1, step=5), Search(how="tree", expand=1, step=5, budget=10**6)):
        for each in search(speaker(), prompts(4), guide, settings, sampling=SAMPLING, seed=1):
            (sample,) = each.samples
            assert each.spent.drawn == len(sample.tokens)
            assert sample.finished == "stop" or len(sample.tokens) == 20


def test_what_is_searched_for_is_liked_more_than_what_is_sampled() -> None:
    asked = prompts(12)
    plain = [group[0] for group in rollout(speaker(), asked, n=1, sampling=SAMPLING, seed=5)]
    before = sum(guide(asked, [[sample] for sample in plain]))
    for settings in (Search(width=2, expand=3, step=6), Search(how="tree", expand=3, step=6, budget=1500)):
        after = sum(max(each.values()) for each in found(settings, asked))
        assert after > before + 12 * 0.1


def test_the_context_is_the_limit() -> None:
    (prompt,) = prompts(1)
    engine = policy(context=48, dtype=torch.float64)
    room = 48 - len(render_prompt(prompt.dialog, tokenizer()))
    for settings in (Search(step=7), Search(how="tree", step=7, budget=2000)):
        for sample in search(engine, [prompt], guide, settings, sampling=Sampling(1.0, 1.0, 99), seed=1)[0].samples:
            assert len(sample.tokens) <= room
    with pytest.raises(BadInput, match="prompt 0 has"):
        search(policy(context=8), [prompt], guide, Search(), sampling=SAMPLING, seed=1)


def test_a_penalty_for_repetition_is_refused() -> None:
    """A step's prompt holds the answer so far, whose tokens it would not count."""
    with pytest.raises(BadInput, match="repetition_penalty: a search draws without it"):
        search(speaker(), prompts(1), guide, Search(), sampling=replace(SAMPLING, repetition_penalty=1.2), seed=1)


def test_a_beam_keeps_what_has_ended() -> None:
    """However much more the beam expects of what goes on: that may be cut in the end."""
    tree = _Tree(prompts(1)[0], speaker(), SAMPLING)
    ended, hopeful, better = (
        _Node((i,), (0.0,), left, value) for i, left, value in ((5, 0, 0.5), (6, 9, 0.8), (7, 9, 0.9))
    )
    tree.add([ended, hopeful, better])
    assert tree.prune(2)
    assert (tree.open, tree.done) == ([better, hopeful], [ended])


def test_an_answer_stops_after_a_token_that_stops_it() -> None:
    """Whatever decodes beside it, and where that is its first token."""
    asked = [Request(tuple(render_prompt(p.dialog, tokenizer())), tuple(range(8)), SAMPLING) for p in prompts(5)]
    plain = speaker().generate(asked)
    stopped = speaker().generate([replace(request, stops=STOPS) for request in asked])
    lengths = set()
    for a, b in zip(plain, stopped, strict=True):
        for whole, part in zip(a, b, strict=True):
            ends = [i + 1 for i, token in enumerate(whole.tokens) if token in STOPS] or [len(whole.tokens)]
            assert part.tokens == whole.tokens[: ends[0]]
            assert part.logprobs == pytest.approx(whole.logprobs[: ends[0]], abs=1e-9)
            lengths.add(ends[0])
    assert 1 in lengths
    assert len(lengths) > 4


def test_sentences_end_with_their_marks() -> None:
    marks = {tokenizer().decode([i]).strip(" ") for i in sentence_ends(tokenizer())}
    assert {".", "!", "?", "\n"} <= marks
    assert all(mark[-1] in ".!?\n" for mark in marks)


# Who guides


def test_a_critic_s_value_is_that_before_the_next_token() -> None:
    """V of a partial answer is read at its last token; of a finished one, before EOS came."""
    critic = scorer(2)
    samples = [s for group in rollout(speaker(), prompts(6), n=2, sampling=SAMPLING, seed=2) for s in group]
    assert {s.finished for s in samples} == {"stop", "length"}
    for sample, value in zip(samples, values_of(critic, [samples]), strict=True):
        if sample.finished == "stop":
            before_eos = critic.role.values(batch_of([sampled_sequence(sample)]))[-1]
            assert value == pytest.approx(float(before_eos.detach()), abs=1e-5)
        else:
            assert value == pytest.approx(float(guide_of(critic, sample)), abs=1e-5)


def guide_of(model: RewardModel, sample: Sample) -> float:
    return float(model.score_tokens([[*sample.prompt_tokens, *sample.tokens]])[0])


def test_a_critic_guides_and_the_reward_chooses() -> None:
    asked, settings = prompts(6), Search(width=3, expand=2, step=6)
    reward, critic = CombinedReward(scorer(), None, tokenizer()), scorer(2)
    alone = Chooser(None, 1, settings, critic)(speaker(), asked, sampling=SAMPLING, seed=5)
    both = Chooser(reward, 1, settings, critic)(speaker(), asked, sampling=SAMPLING, seed=5)
    for one, two in zip(alone, both, strict=True):
        assert len(one.scores) == len(two.scores)  # the same were found
        assert two.score == pytest.approx(guide_of(scorer(), two.sample), abs=1e-5)
        ended = two.sample.finished == "stop"
        assert not ended or two.score >= guide_of(scorer(), one.sample) - 1e-5
        # and read once more
        assert two.spent.scored > one.spent.scored
        assert two.spent.drawn == one.spent.drawn
    assert any(one.sample != two.sample for one, two in zip(alone, both, strict=True))


@pytest.mark.parametrize(
    ("reward", "n", "settings", "critic", "message"),
    [
        (True, 4, Search(), False, "best_of: an answer is the best of several, or what a search finds"),
        (True, 4, None, True, "critic: a critic guides a search"),
        (False, 1, Search(), False, "search: a search asks a reward model or a critic"),
        (False, 2, None, False, "best_of: best_of and a reward model belong together"),
        (True, 1, None, False, "best_of: best_of and a reward model belong together"),
    ],
)
def test_what_does_not_go_together(reward: bool, n: int, settings: Search | None, critic: bool, message: str) -> None:
    given = CombinedReward(scorer(), None, tokenizer()) if reward else None
    with pytest.raises(BadInput, match=message):
        chooser_of(given, n, settings, scorer() if critic else None, tokenizer())


def test_a_critic_of_other_tokens_is_refused() -> None:
    stranger = RewardModel(scorer().role, tokenizer(1))
    with pytest.raises(BadInput, match="critic: the critic reads the policy's tokens, but their tokenizers differ"):
        chooser_of(None, 1, Search(), stranger, tokenizer())
