"""The engine against full forward passes: log-probs, greedy, independence of neighbours; and the sample store."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rollout_golden
import torch
import torch.multiprocessing
import two_ranks
from scipy import stats
from tiny import policy, prompts, tokenizer

from ayni.errors import BadInput
from ayni.files import Killed
from ayni.model.heads import token_logprobs
from ayni.model.layout import Layout
from ayni.records import Message, Prompt, Sample, TokenSequence, to_dict
from ayni.rollout import engine, local
from ayni.rollout.engine import Request, rollout, sampled_sequence, stream, with_room
from ayni.rollout.local import LocalEngine
from ayni.rollout.sampling import Sampling
from ayni.rollout.store import chunk_from_json, draw_all, read_chunks, read_groups
from ayni.text.chat import TAGS, render_prompt
from ayni.train.batch import batch_of


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few slots and small chunks, so that slots are refilled and chunks follow one another."""
    monkeypatch.setattr(local, "SLOTS", 4)
    monkeypatch.setattr(engine, "CHUNK_SAMPLES", 15)


def trained(speaker: LocalEngine, sample: Sample, temperature: float) -> torch.Tensor:
    """The training forward's log-probs of the sampled tokens."""
    batch = batch_of([sampled_sequence(sample)])
    hidden = speaker.role.model(batch.tokens, batch.layout)[batch.mask]
    return token_logprobs(hidden, speaker.role.model.head, batch.targets[batch.mask], temperature).detach()


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
            expected = trained(speaker, sample, temperature or 1.0)
            torch.testing.assert_close(torch.tensor(sample.logprobs), expected, rtol=0, atol=1e-4)
            eos = tokenizer().eos
            assert (sample.tokens[-1] == eos) == (sample.finished == "stop")
            assert eos not in sample.tokens[:-1]
            assert sample.finished == "stop" or len(sample.tokens) == 24
            assert (sample.prompt_id, sample.task, sample.model) == (prompt.id, prompt.task, speaker.name)
            assert list(sample.prompt_tokens) == render_prompt(prompt.dialog, speaker.tokenizer)
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
            hidden = speaker.role.model(torch.tensor(tokens + drawn), Layout.of([len(tokens) + len(drawn)]))
            drawn.append(int((hidden[-1] @ speaker.role.model.head.t()).argmax()))
        assert list(sample.tokens) == drawn


def test_a_sample_depends_on_its_seed_iteration_prompt_and_k_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """In fp64, where rounding cannot flip a token: any neighbours, order, number of samples, slots and chunks."""
    speaker, asked, sampling = policy(dtype=torch.float64), prompts(9), Sampling(1.0, 1.0, 20)
    whole = tokens_of(rollout(speaker, asked, n=3, sampling=sampling, seed=5, iteration=2))
    more = tokens_of(rollout(speaker, asked[::-1], n=5, sampling=sampling, seed=5, iteration=2))[::-1]
    assert [row[:3] for row in more] == whole
    monkeypatch.setattr(local, "SLOTS", 3)
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
    hidden = speaker.role.model(torch.tensor(tokens), Layout.of([len(tokens)]))[-1]
    p = torch.softmax((hidden @ speaker.role.model.head.t()).double() / 0.8, -1).detach().numpy()
    groups = rollout(speaker, [prompt], n=4000, sampling=Sampling(0.8, 1.0, 1), seed=3)
    counts = np.bincount([sample.tokens[0] for sample in groups[0]], minlength=len(p))
    common = p > 10 / 4000
    observed = [*counts[common], counts[~common].sum()]
    expected = [*(4000 * p[common]), 4000 * p[~common].sum()]
    assert common.sum() > 10
    assert stats.chisquare(observed, expected).pvalue > 1e-3


def test_only_what_was_sampled_is_supervised() -> None:
    (sample,) = sample_of(prompts(1)[0])
    assert sampled_sequence(sample) == TokenSequence([1, 9, 5, 2], [False, False, True, True])


def test_a_stream_is_the_sample_of_its_seed() -> None:
    speaker, asked, sampling = policy(dtype=torch.float64), prompts(12), Sampling(0.9, 0.95, 24)
    groups = rollout(speaker, asked, n=2, sampling=sampling, seed=9)
    for prompt, group in zip(asked, groups, strict=True):
        for sample in group:
            streamed = list(speaker.stream(Request(sample.prompt_tokens, (sample.seed, 0), sampling)))
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
    monkeypatch.setattr(speaker, "stream", lambda request: iter(tokens[:-1]))
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


def test_bf16_decodes_and_stays_close() -> None:
    speaker, asked, sampling = policy(), prompts(4), Sampling(1.0, 1.0, 16)
    speaker.role.model.dtype = torch.bfloat16
    speaker.sync(speaker.role)
    assert speaker.decoder.dtype == torch.bfloat16
    assert speaker.role.model.head.dtype == torch.float32
    groups = rollout(speaker, asked, n=2, sampling=sampling, seed=1)
    for group in groups:
        for sample in group:
            gap = torch.tensor(sample.logprobs) - trained(speaker, sample, 1.0)
            assert gap.abs().max() < 0.3


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_sync_samples_from_the_weights_as_they_are_now(dtype: torch.dtype | None) -> None:
    """Not before; another model too."""
    speaker, other, asked = policy(0), policy(1), prompts(4)

    def drawn(*, fresh: bool) -> list[list[tuple[int, ...]]]:
        given = LocalEngine(speaker.role, speaker.tokenizer) if fresh else speaker
        return tokens_of(rollout(given, asked, n=2, sampling=Sampling(1.0, 1.0, 16), seed=1))

    for each in (speaker, other):
        each.role.model.dtype = dtype
        each.sync(each.role)
    first, copied = drawn(fresh=False), speaker.decoder
    with torch.no_grad():
        for ours, theirs in zip(speaker.role.model.parameters(), policy(2).role.model.parameters(), strict=True):
            ours.copy_(theirs)
    assert drawn(fresh=False) == first
    speaker.sync(speaker.role)
    assert speaker.decoder is copied
    assert drawn(fresh=False) == drawn(fresh=True) != first
    speaker.sync(other.role)
    assert speaker.role.model is other.role.model
    assert drawn(fresh=False) == drawn(fresh=True)


def test_prompts_may_ask_for_different_numbers_of_samples() -> None:
    speaker, sampling = policy(), Sampling(1.0, 1.0, 5)
    heads = [tuple(render_prompt(p.dialog, speaker.tokenizer)) for p in prompts(3)]
    asked = [Request(head, seeds, sampling) for head, seeds in zip(heads, [(1, 2, 3), (), (4,)], strict=True)]
    assert [len(row) for row in speaker.generate(asked)] == [3, 0, 1]
    assert speaker.generate(asked[1:2]) == [[]]
    assert speaker.generate([]) == []


def test_prompts_are_read_once_per_tokenizer(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr(engine, "render_prompt", lambda dialog, tokenizer: calls.append(dialog) or [1, 2])
    asked = prompts(3)
    assert with_room(asked, [policy(0), policy(1), policy(2)], print) == asked
    assert len(calls) == 3
    rollout(policy(), asked, n=4, sampling=Sampling(1.0, 1.0, 2), seed=0)
    assert len(calls) == 6


# What was written down


@pytest.mark.parametrize("name", rollout_golden.CASES)
def test_the_bits_are_those_written_down(name: str) -> None:
    """In fp64 everywhere, to rounding; every bit where the matrix kernels are those of the machine that wrote."""
    golden, case = json.loads(rollout_golden.FILE.read_text()), rollout_golden.CASES[name]
    groups = rollout(
        rollout_golden.speaker(case), prompts(case.count), n=case.n, sampling=case.sampling, seed=rollout_golden.SEED
    )
    found = rollout_golden.written(groups)
    if rollout_golden.kernels(case.dtype) == golden["kernels"][case.dtype]:
        assert found == golden[name]
    elif case.dtype == "fp64":
        assert (found["tokens"], found["length"]) == (golden[name]["tokens"], golden[name]["length"])
        assert found["logprob"] == pytest.approx(golden[name]["logprob"], abs=1e-8)


# Two processes


def test_two_processes_share_a_rollout_and_both_have_all_of_it(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(two_ranks.work, (port, tmp_path), nprocs=2, start_method="spawn")
    first, second = ((tmp_path / f"{rank}.json").read_bytes() for rank in (0, 1))
    assert first == second
    asked, sampling = prompts(7), Sampling(1.0, 1.0, 20)
    found = chunk_from_json(first, Path("samples.jsonl"), 1)
    shares = [rollout(policy(), asked[rank::2], n=2, sampling=sampling, seed=3) for rank in (0, 1)]
    assert found == [shares[i % 2][i // 2] for i in range(7)]  # each its own share, bit for bit
    alone = rollout(policy(), asked, n=2, sampling=sampling, seed=3)
    assert tokens_of(found) == tokens_of(alone)
    for rank in (0, 1):
        assert json.loads((tmp_path / f"{rank}-found.json").read_text()) == two_ranks.found(policy())


# The store


def sample_of(prompt: Prompt, text: str = "yes") -> list[Sample]:
    return [Sample(prompt.id, "helpfulness", (1, 9), (5, 2), (-0.25, -1 / 3), text, "stop", "m", 0, 1.0, 7)]


def test_a_store_draws_only_what_is_missing(tmp_path: Path) -> None:
    path, asked = tmp_path / "samples.jsonl", prompts(10)
    calls: list[list[str]] = []
    progress: list[int] = []

    def draw(part: Sequence[Prompt]) -> list[list[Sample]]:
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


@pytest.mark.parametrize(("tail", "what"), [(b'[[{"prompt', "not JSON"), (b"\xff\n", "is not UTF-8 at byte 1")])
def test_somebody_s_store_is_read_and_not_mended(tail: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    draw_all(path, prompts(2), lambda part: [sample_of(p) for p in part], chunk=2, progress=lambda done, total: None)
    data = path.read_bytes() + tail
    path.write_bytes(data)
    with pytest.raises(BadInput, match=what) as caught:
        read_groups(path)
    assert (caught.value.line, path.read_bytes()) == (2, data)


def test_answers_may_hold_any_line_separator(tmp_path: Path) -> None:
    path, asked = tmp_path / "samples.jsonl", prompts(3)
    texts = ["next\u0085line", "line\u2028paragraph\u2029", "feed\x0c tab\x0b\x1c\nnewline"]
    answers = dict(zip([p.id for p in asked], texts, strict=True))

    def draw(part: Sequence[Prompt]) -> list[list[Sample]]:
        return [sample_of(p, answers[p.id]) for p in part]

    drawn = draw_all(path, asked, draw, chunk=1, progress=lambda done, total: None)
    assert [group[0].text for group in read_groups(path)] == texts
    assert read_groups(path) == drawn


def test_a_store_of_other_chunks_is_continued_where_it_ends(tmp_path: Path) -> None:
    path, asked = tmp_path / "samples.jsonl", prompts(7)
    drawn: list[str] = []

    def draw(part: Sequence[Prompt]) -> list[list[Sample]]:
        drawn.extend(p.id for p in part)
        return [sample_of(p) for p in part]

    draw_all(path, asked[:3], draw, chunk=3, progress=lambda done, total: None)
    groups = draw_all(path, asked, draw, chunk=2, progress=lambda done, total: None)
    assert [group[0].prompt_id for group in groups] == [p.id for p in asked] == drawn


def test_a_store_of_an_earlier_version_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    (sample,) = sample_of(prompts(1)[0])
    now = to_dict(sample)
    then = {name: value for name, value in now.items() if name != "prompt_tokens"}
    path.write_text(f"{json.dumps([[now]])}\n{json.dumps([[now, now], [now, then]])}\n")
    with pytest.raises(
        BadInput, match=r"samples.jsonl:2: prompt_tokens: .* earlier versions .*; draw them again: --fresh"
    ):
        read_groups(path)
    for line, said in (('[[{"prompt_id": 3}]]', "prompt_id"), ("[[", "JSON"), ("{}", "no store of samples")):
        path.write_text(f"{line}\n")
        with pytest.raises(BadInput, match=rf"samples.jsonl:1: .*{said}"):
            read_groups(path)
