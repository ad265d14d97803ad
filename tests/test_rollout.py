"""The engine against full forward passes: log-probs, greedy, independence of neighbours; and the sample store."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from tiny import policy, prompts, tokenizer

from ayni.errors import BadInput
from ayni.files import Killed
from ayni.model.heads import token_logprobs
from ayni.model.layout import Layout
from ayni.records import Message, Prompt, Sample, Sequence
from ayni.rollout import engine
from ayni.rollout.engine import Policy, decoding, generate, rollout, stream, stream_tokens, with_room
from ayni.rollout.sampling import Sampling
from ayni.rollout.store import draw_all, read_chunks, read_groups
from ayni.text.chat import TAGS, render_prompt
from ayni.train.batch import batch_of


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few slots and small chunks, so that slots are refilled and chunks follow one another."""
    monkeypatch.setattr(engine, "SLOTS", 4)
    monkeypatch.setattr(engine, "CHUNK_SAMPLES", 15)


def trained(speaker: Policy, prompt: Prompt, sample: Sample, temperature: float) -> torch.Tensor:
    """The training forward's log-probs of the sampled tokens."""
    head = render_prompt(prompt.dialog, speaker.tokenizer)
    batch = batch_of([Sequence(head + list(sample.tokens), [False] * len(head) + [True] * len(sample.tokens))])
    hidden = speaker.model(batch.tokens, batch.layout)
    return token_logprobs(hidden, speaker.model.head, batch.targets, batch.mask, temperature).detach()


def tokens_of(groups: list[list[Sample]]) -> list[list[tuple[int, ...]]]:
    return [[sample.tokens for sample in group] for group in groups]


@pytest.mark.usefixtures("crowded")
@pytest.mark.parametrize("top_p", [1.0, 0.8])
@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.4, 0.0])
def test_the_samplers_logprobs_are_the_training_forwards(temperature: float, top_p: float) -> None:
    speaker, asked = policy(), prompts(8)
    groups = rollout(speaker, asked, n=3, sampling=Sampling(temperature, top_p, 24), seed=1)
    assert [len(group) for group in groups] == [3] * 8
    ends = set()
    for prompt, group in zip(asked, groups, strict=True):
        for sample in group:
            expected = trained(speaker, prompt, sample, temperature or 1.0)
            torch.testing.assert_close(torch.tensor(sample.logprobs), expected, rtol=0, atol=1e-4)
            eos = tokenizer().eos
            assert (sample.tokens[-1] == eos) == (sample.finished == "stop")
            assert eos not in sample.tokens[:-1]
            assert sample.finished == "stop" or len(sample.tokens) == 24
            assert (sample.prompt_id, sample.task, sample.model) == (prompt.id, prompt.task, speaker.name)
            ends.add(sample.finished)
    if temperature * top_p >= 1:
        assert ends == {"stop", "length"}


@pytest.mark.usefixtures("crowded")
def test_greedy_is_the_argmax_of_full_forward_passes() -> None:
    speaker, asked = policy(3), prompts(6)
    groups = rollout(speaker, asked, n=1, sampling=Sampling(0.0, 1.0, 16), seed=0)
    for prompt, (sample,) in zip(asked, groups, strict=True):
        tokens = render_prompt(prompt.dialog, speaker.tokenizer)
        drawn: list[int] = []
        while len(drawn) < 16 and drawn[-1:] != [speaker.tokenizer.eos]:
            hidden = speaker.model(torch.tensor(tokens + drawn), Layout.of([len(tokens) + len(drawn)]))
            drawn.append(int((hidden[-1] @ speaker.model.head.t()).argmax()))
        assert list(sample.tokens) == drawn


def test_a_sample_depends_on_its_seed_iteration_prompt_and_k_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """In fp64, where rounding cannot flip a token: any neighbours, order, number of samples, slots and chunks."""
    speaker, asked, sampling = policy(dtype=torch.float64), prompts(9), Sampling(1.0, 1.0, 20)
    whole = tokens_of(rollout(speaker, asked, n=3, sampling=sampling, seed=5, iteration=2))
    more = tokens_of(rollout(speaker, asked[::-1], n=5, sampling=sampling, seed=5, iteration=2))[::-1]
    assert [row[:3] for row in more] == whole
    monkeypatch.setattr(engine, "SLOTS", 3)
    monkeypatch.setattr(engine, "CHUNK_SAMPLES", 7)
    assert tokens_of(rollout(speaker, asked, n=3, sampling=sampling, seed=5, iteration=2)) == whole
    for i in (0, 4, 8):
        assert tokens_of(rollout(speaker, [asked[i]], n=3, sampling=sampling, seed=5, iteration=2)) == [whole[i]]
    others = [
        rollout(speaker, asked, n=3, sampling=sampling, seed=6, iteration=2),
        rollout(speaker, asked, n=3, sampling=sampling, seed=5, iteration=3),
        rollout(speaker, [replace(p, id=p.id + "'") for p in asked], n=3, sampling=sampling, seed=5, iteration=2),
    ]
    for groups in others:
        same = [a == b for x, y in zip(tokens_of(groups), whole, strict=True) for a, b in zip(x, y, strict=True)]
        assert sum(same) < 5
    assert sum(len(set(row)) == 3 for row in whole) > 5


def test_in_fp32_the_same_chunk_gives_the_same_bits() -> None:
    speaker, asked, sampling = policy(), prompts(9), Sampling(1.0, 1.0, 20)
    first, second = (rollout(speaker, asked, n=2, sampling=sampling, seed=5) for _ in range(2))
    assert first == second


def test_first_tokens_are_as_frequent_as_they_are_probable() -> None:
    speaker = policy(2)
    (prompt,) = prompts(1, seed=4)
    tokens = render_prompt(prompt.dialog, speaker.tokenizer)
    hidden = speaker.model(torch.tensor(tokens), Layout.of([len(tokens)]))[-1]
    p = torch.softmax((hidden @ speaker.model.head.t()).double() / 0.8, -1).detach().numpy()
    groups = rollout(speaker, [prompt], n=4000, sampling=Sampling(0.8, 1.0, 1), seed=3)
    counts = np.bincount([sample.tokens[0] for sample in groups[0]], minlength=len(p))
    common = p > 10 / 4000
    observed = [*counts[common], counts[~common].sum()]
    expected = [*(4000 * p[common]), 4000 * p[~common].sum()]
    assert common.sum() > 10
    assert stats.chisquare(observed, expected).pvalue > 1e-3


def test_a_stream_is_the_sample_of_its_seed() -> None:
    speaker, asked, sampling = policy(dtype=torch.float64), prompts(12), Sampling(0.9, 0.95, 24)
    groups = rollout(speaker, asked, n=2, sampling=sampling, seed=9)
    for prompt, group in zip(asked, groups, strict=True):
        for sample in group:
            head = render_prompt(prompt.dialog, speaker.tokenizer)
            streamed = list(stream_tokens(speaker, head, sampling=sampling, seed=sample.seed))
            assert streamed == [t for t in sample.tokens if t != speaker.tokenizer.eos]
            pieces = list(stream(speaker, prompt.dialog, sampling=sampling, seed=sample.seed))
            assert "".join(pieces) == sample.text


@pytest.mark.parametrize(
    "said",
    [" hello ", "  two  spaces  ", " 中国 🎉", " a [INST] b", "x [IN[INST]ST] y", " ends in <<SY", " [/INST]", "", " "],
)
def test_streamed_text_never_takes_anything_back(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    speaker = policy()
    tokens = [*speaker.tokenizer.encode(said)[1:], speaker.tokenizer.eos]  # (less the tokenizer's own first space)
    monkeypatch.setattr(engine, "stream_tokens", lambda *given, **kw: iter(tokens[:-1]))
    pieces = list(stream(speaker, (Message("user", "hi"),), sampling=Sampling(), seed=0))
    whole = engine.answer_text(tokens, speaker.tokenizer)
    assert "".join(pieces) == whole
    assert not any(tag in whole for tag in TAGS)
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_stages_drop_prompts_without_room_and_say_so() -> None:
    narrow, wide = policy(context=26), policy(context=64)
    long = Prompt("long", (Message("user", "the hare asks a wise owl why rain falls"),))
    short = Prompt("short", (Message("user", "owl"),))
    said: list[str] = []
    assert with_room([long, short], [wide], said.append) == [long, short]
    assert with_room([], [narrow], said.append) == []
    assert said == []
    assert with_room([long, short], [wide, narrow], said.append) == [short]
    assert said == ["1 of 2 prompts dropped: they fill the context of 26 tokens"]
    with pytest.raises(BadInput, match="every prompt fills the model's context of 26 tokens; shorten the prompts"):
        with_room([long], [narrow], said.append)


def test_a_prompt_without_room_is_bad_input() -> None:
    speaker = policy(context=26)
    long = Prompt("long", (Message("user", "the hare asks a wise owl why rain falls"),))
    short = Prompt("short", (Message("user", "owl"),))
    with pytest.raises(BadInput, match=r"prompt 1 has \d+ tokens, the model's context 26; shorten the prompt"):
        rollout(speaker, [short, long], n=1, sampling=Sampling(), seed=0)
    with pytest.raises(BadInput, match=r"the prompt has \d+ tokens"):
        list(stream(speaker, long.dialog, sampling=Sampling(), seed=0))
    (group,) = rollout(speaker, [short], n=20, sampling=Sampling(1.0, 1.0, 99), seed=0)
    head = len(render_prompt(short.dialog, speaker.tokenizer))
    assert {len(s.tokens) for s in group if s.finished == "length"} == {26 - head}  # the context is full
    assert {s.finished for s in group} == {"stop", "length"}


def test_bf16_decodes_a_copy_and_stays_close() -> None:
    speaker, asked = policy(), prompts(4)
    speaker.model.dtype = torch.bfloat16
    assert decoding(speaker).model.head.dtype == torch.bfloat16
    assert speaker.model.head.dtype == torch.float32
    groups = rollout(speaker, asked, n=2, sampling=Sampling(1.0, 1.0, 16), seed=1)
    for prompt, group in zip(asked, groups, strict=True):
        for sample in group:
            gap = torch.tensor(sample.logprobs) - trained(speaker, prompt, sample, 1.0)
            assert gap.abs().max() < 0.3


def test_prompts_may_ask_for_different_numbers_of_samples() -> None:
    speaker = policy()
    heads = [render_prompt(p.dialog, speaker.tokenizer) for p in prompts(3)]
    drawn = generate(speaker, heads, [[1, 2, 3], [], [4]], Sampling(1.0, 1.0, 5))
    assert [len(row) for row in drawn] == [3, 0, 1]
    assert generate(speaker, [], [], Sampling()) == []


# The store


def sample_of(prompt: Prompt, text: str = "yes") -> list[Sample]:
    return [Sample(prompt.id, "helpfulness", (5, 2), (-0.25, -1 / 3), text, "stop", "m", 0, 1.0, 7)]


def test_a_store_draws_only_what_is_missing(tmp_path: Path) -> None:
    path, asked = tmp_path / "samples.jsonl", prompts(10)
    calls: list[list[str]] = []
    progress: list[int] = []

    def draw(part: Many[Prompt]) -> list[list[Sample]]:
        calls.append([p.id for p in part])
        if len(calls) == 3:
            raise Killed("while drawing")
        return [sample_of(p) for p in part]

    def all_of() -> list[list[Sample]]:
        return draw_all(path, asked, draw, chunk=4, progress=lambda done, total: progress.append(done))

    with pytest.raises(Killed):
        all_of()
    data = path.read_bytes()
    with open(path, "ab") as file:
        file.write(b'[[{"prompt_id": "p0-8", "tas')  # a kill in the middle of a line
    assert all_of() == [sample_of(p) for p in asked]
    assert path.read_bytes().startswith(data)
    assert [len(call) for call in calls] == [4, 4, 2, 2]
    assert progress == [4, 8, 10]
    assert read_groups(path) == [sample_of(p) for p in asked]
    assert [len(chunk) for chunk in read_chunks(path)] == [4, 4, 2]


def test_answers_may_hold_any_line_separator(tmp_path: Path) -> None:
    path, asked = tmp_path / "samples.jsonl", prompts(3)
    texts = ["next\u0085line", "line\u2028paragraph\u2029", "feed\x0c tab\x0b\x1c\nnewline"]
    answers = dict(zip([p.id for p in asked], texts, strict=True))

    def draw(part: Many[Prompt]) -> list[list[Sample]]:
        return [sample_of(p, answers[p.id]) for p in part]

    drawn = draw_all(path, asked, draw, chunk=1, progress=lambda done, total: None)
    assert [group[0].text for group in read_groups(path)] == texts
    assert read_groups(path) == drawn


def test_a_store_of_other_chunks_is_continued_where_it_ends(tmp_path: Path) -> None:
    path, asked = tmp_path / "samples.jsonl", prompts(7)
    drawn: list[str] = []

    def draw(part: Many[Prompt]) -> list[list[Sample]]:
        drawn.extend(p.id for p in part)
        return [sample_of(p) for p in part]

    draw_all(path, asked[:3], draw, chunk=3, progress=lambda done, total: None)
    groups = draw_all(path, asked, draw, chunk=2, progress=lambda done, total: None)
    assert [group[0].prompt_id for group in groups] == [p.id for p in asked] == drawn
