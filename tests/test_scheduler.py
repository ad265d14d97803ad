"""The scheduler and its step: requests that come while others run, mixed samplings, slots, and no look at a tensor."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache
from typing import Any

import pytest
import torch
from tiny import policy, prompts

from ayni.errors import BadInput
from ayni.model.shape import Shape
from ayni.rollout import sampling
from ayni.rollout.decode import DecodeState, admit, decode_step, grown, kept, no_slots
from ayni.rollout.decoder import Decoder
from ayni.rollout.engine import Drawn, Request
from ayni.rollout.prefill import begin
from ayni.rollout.sampling import Sampling, ways_of
from ayni.rollout.scheduler import Scheduler
from ayni.text.chat import render_prompt

CONTEXT = 96
SAMPLINGS = [Sampling(1.0, 1.0, 20), Sampling(0.0, 1.0, 12), Sampling(0.7, 0.8, 30), Sampling(1.3, 1.0, 1)]


def model(dtype: torch.dtype = torch.float64) -> Decoder:
    """In fp64 rounding cannot flip a token."""
    return Decoder(policy(dtype=dtype).role.model)


def scheduler(slots: int = 4, dtype: torch.dtype = torch.float64) -> Scheduler:
    return Scheduler(model(dtype), policy().tokenizer.eos, CONTEXT, slots)


def requests(count: int, *, n: int = 2) -> list[Request]:
    """Of every sampling in turn."""
    heads = [tuple(render_prompt(p.dialog, policy().tokenizer)) for p in prompts(count)]
    return [
        Request(head, tuple(100 * i + k for k in range(n)), SAMPLINGS[i % len(SAMPLINGS)])
        for i, head in enumerate(heads)
    ]


def answers(given: Scheduler) -> dict[tuple[int, int], Drawn]:
    found: dict[tuple[int, int], Drawn] = {}
    while not given.idle:
        found |= {(id, k): drawn for id, k, drawn in given.step()}
    return found


@cache
def alone(request: Request) -> list[Drawn]:
    one = scheduler()
    (id,) = one.submit([request])
    found = answers(one)
    return [found[id, k] for k in range(len(request.seeds))]


def assert_same(found: Drawn, expected: Drawn) -> None:
    assert found.tokens == expected.tokens
    assert found.logprobs == pytest.approx(expected.logprobs, abs=1e-9)


@pytest.mark.parametrize("slots", [1, 4, 64])
def test_requests_of_different_samplings_answer_as_they_do_alone(slots: int) -> None:
    asked, together = requests(9), scheduler(slots)
    ids = together.submit(asked)
    assert ids == list(range(9))
    found = answers(together)
    assert len(found) == 18
    for id, request in zip(ids, asked, strict=True):
        for k, expected in enumerate(alone(request)):
            assert_same(found[id, k], expected)
            assert len(expected.tokens) == len(expected.logprobs) <= request.sampling.max_tokens


@pytest.mark.parametrize("slots", [1, 3, 8, 64])
def test_requests_may_come_while_others_run(slots: int) -> None:
    """Longer ones too, after slots were given up, and after all were done."""
    first, second, last = requests(3), requests(8)[3:], requests(2)
    second[1] = replace(second[1], sampling=Sampling(1.0, 1.0, 60))
    running = scheduler(slots)
    ids = running.submit(first)
    found: dict[tuple[int, int], Drawn] = {}
    for _ in range(12):
        found |= {(id, k): drawn for id, k, drawn in running.step()}
    assert not running.idle
    ids += running.submit(second[:2])
    found |= {(id, k): drawn for id, k, drawn in running.step()}
    ids += running.submit(second[2:])
    found |= answers(running)
    ids += running.submit(last)
    found |= answers(running)
    for id, request in zip(ids, [*first, *second, *last], strict=True):
        for k, expected in enumerate(alone(request)):
            assert_same(found[id, k], expected)


def test_at_most_slots_rows_and_few_when_few_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    running, rows = scheduler(slots=8), []
    forward = Decoder.__call__

    def counted(self: Decoder, tokens: torch.Tensor, context: Any, asked: Any = None) -> torch.Tensor:
        rows.append(len(tokens))
        return forward(self, tokens, context, asked)

    monkeypatch.setattr(Decoder, "__call__", counted)
    asked = [replace(r, sampling=Sampling(1.0, 1.0, 40)) for r in requests(6, n=3)]
    running.submit(asked)
    answers(running)
    assert rows[0] == sum(len(request.tokens) for request in asked)  # once for its three samples
    assert max(rows[1:]) == 8
    assert rows[-1] <= 2


def test_so_far_is_what_streams() -> None:
    running = scheduler(slots=2)
    (id,) = running.submit([requests(1, n=3)[0]])
    assert running.so_far() == {}
    ended = running.step()
    assert {key: len(tokens) for key, tokens in running.so_far().items()} == {(id, 0): 1, (id, 1): 1}
    seen: dict[tuple[int, int], list[int]] = {}
    found: dict[tuple[int, int], list[int]] = {}
    while not running.idle:
        for key, tokens in running.so_far().items():
            assert tokens[: len(seen.get(key, []))] == seen.get(key, [])
            seen[key] = tokens
        ended = running.step()
        found |= {(end.id, end.k): end.drawn.tokens for end in ended}
    assert found.keys() == seen.keys()
    assert all(tokens[: len(seen[key])] == seen[key] for key, tokens in found.items())
    assert running.so_far() == {}
    assert running.step() == []


def test_a_prompt_without_room_is_refused_and_one_without_seeds_is_done() -> None:
    running = scheduler()
    with pytest.raises(BadInput, match=f"the prompt has {CONTEXT} tokens"):
        running.submit([Request((1,) * CONTEXT, (0,), Sampling())])
    assert running.idle
    assert running.submit([Request((1, 5), (), Sampling())]) == [0]
    assert running.idle
    (id,) = running.submit([Request((1,) * (CONTEXT - 1), (0,), Sampling())])
    assert len(answers(running)[id, 0].tokens) == 1


def test_a_step_reads_back_twice_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which slots ended; and, where some did, what was drawn in them (tokens and log-probs)."""
    monkeypatch.setattr(sampling, "_in_question", lambda p, top_p: p.shape[-1])  # a look that only a CPU takes
    running, reads = scheduler(slots=3), []
    tolist = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda x: reads.append(x.ndim) or tolist(x))
    running.submit(requests(4, n=2))
    running.step()
    assert reads == [2]  # the first tokens and their log-probs
    for name in ("item", "__bool__", "__int__", "__float__", "__index__", "numpy"):
        monkeypatch.setattr(torch.Tensor, name, lambda *_, name=name: pytest.fail(name))
    while not running.idle:
        reads.clear()
        ended = running.step()
        assert reads == ([1, 2, 2] if ended else [1])


# The step


def state_of(samples: int = 5) -> tuple[Decoder, DecodeState]:
    """Five slots with samples of mixed samplings and an idle one."""
    speaker = model(torch.float32)
    asked = requests(samples, n=1)
    begun = [row[0] for row in begin(speaker, asked, CONTEXT, 64)]
    state = grown(no_slots(speaker.shape, torch.float32, torch.device("cpu")), samples + 1, 64, 30)
    admit(state, list(range(samples)), begun)
    return speaker, replace(state, columns=64, ways=ways_of(SAMPLINGS))


@torch.no_grad()
def test_a_step_reads_no_tensor_back() -> None:
    """On the meta device there is nothing to read."""
    device = torch.device("meta")
    speaker = Decoder(policy(dtype=torch.float32).role.model.to(device))
    empty = grown(no_slots(speaker.shape, torch.float32, device), 6, 64, 30)
    for samplings in (*([s] for s in SAMPLINGS), SAMPLINGS):
        state = replace(empty, columns=32, ways=ways_of(samplings))
        after = decode_step(speaker, state, eos=2)
        for field in fields(state):
            before, now = getattr(state, field.name), getattr(after, field.name)
            if isinstance(before, torch.Tensor):
                assert (now.shape, now.dtype, now.device) == (before.shape, before.dtype, device)


@torch.no_grad()
def test_a_step_is_pure_but_for_the_buffers_it_owns() -> None:
    speaker, state = state_of()
    again = kept(state, range(6))  # a copy
    written = {"keys", "values", "tokens", "logprobs"}
    first, second = decode_step(speaker, state, eos=2), decode_step(speaker, again, eos=2)
    for field in fields(state):
        before, one, two = (getattr(s, field.name) for s in (state, first, second))
        if isinstance(one, torch.Tensor):
            assert torch.equal(one, two), field.name
            assert (one is before) == (
                field.name in written | {"seeds", "temperatures", "top_p", "penalties", "limits"}
            )
    assert state.steps.tolist() == [1] * 5 + [0]
    assert first.steps.tolist() == [2] * 5 + [1]
    assert first.tokens[:5, 1].tolist() == first.current[:5].tolist()


@torch.no_grad()
def test_an_idle_slot_keeps_what_was_drawn_in_it() -> None:
    speaker, state = state_of()
    limits = torch.tensor([4, 2, 5, 2, 30, 30])
    state = replace(state, limits=limits)
    for step in range(1, 9):
        state = decode_step(speaker, state, eos=-1)
        assert state.active.tolist() == [step + 1 < limit for limit in limits.tolist()[:5]] + [False]
    _, endless = state_of()
    for _ in range(8):
        endless = decode_step(speaker, endless, eos=-1)
    for slot, limit in enumerate([4, 2, 5, 2, 9]):
        assert torch.equal(state.tokens[slot, :limit], endless.tokens[slot, :limit])
        torch.testing.assert_close(state.logprobs[slot, :limit], endless.logprobs[slot, :limit], rtol=0, atol=1e-4)
    assert not state.tokens[5, :-1].any()


def test_growing_keeps_what_is_there() -> None:
    _, state = state_of()
    more = grown(state, 9, 80, 40)
    shape: Shape = model().shape
    assert more.keys[1].shape == (9, shape.kv_heads, 80, shape.head_dim)
    assert more.tokens.shape == (9, 41)
    assert torch.equal(more.keys[1][:6, :, :64], state.keys[1])
    assert torch.equal(more.seeds[:6], state.seeds)
    assert grown(more, 1, 1, 1).tokens.shape == (9, 41)  # never less
    few = kept(more, [4, 2])
    assert torch.equal(few.values[0], more.values[0][[4, 2]])
    assert few.limits.tolist() == [more.limits[4], more.limits[2]]
