"""The only shift, examples side by side, and the cut into micro-batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import answered, group, pair, trajectory

from ayni.records import TokenSequence
from ayni.train.batch import (
    Batch,
    Experience,
    Group,
    Groups,
    Pair,
    PairBatch,
    batch_of,
    cut,
    experience_of,
    groups_of,
    pairs_of,
    tokens_in,
)


def test_the_shift_by_hand() -> None:
    batch = batch_of([TokenSequence([1, 7, 8, 2], [False, False, True, True]), TokenSequence([1, 2], [False, True])])
    assert batch.tokens.tolist() == [1, 7, 8, 2, 1, 2]
    assert batch.mask.tolist() == [False, True, True, False, True, False]
    assert batch.targets[batch.mask].tolist() == [8, 2, 2]
    assert batch.layout.offsets.tolist() == [0, 4, 6]
    assert batch.layout.ends.tolist() == [3, 5]


def test_every_column_speaks_of_its_own_sequences_next_token() -> None:
    draw = np.random.default_rng(0)
    for _ in range(50):
        rows = [answered(draw) for _ in range(draw.integers(1, 8))]
        batch = batch_of(rows)
        column = 0
        for row in rows:
            for i, token in enumerate(row.tokens):
                assert batch.tokens[column] == token
                last = i == len(row.tokens) - 1
                assert batch.mask[column] == (False if last else row.mask[i + 1])
                if not last:
                    assert batch.targets[column] == row.tokens[i + 1]
                column += 1
        assert column == len(batch.tokens) == len(batch.targets) == len(batch.mask)


def test_a_supervised_first_token_has_no_column() -> None:
    """Nothing comes before it that could predict it."""
    batch = batch_of([TokenSequence([1, 5], [False, True]), TokenSequence([6, 7], [True, True])])
    assert batch.mask.tolist() == [True, False, True, False]


F, T = False, True


def own_tokens(batch: Batch) -> list[list[int]]:
    return [part.tolist() for part in batch.tokens.split(batch.layout.offsets.diff().tolist())]


def test_answers_share_the_columns_of_their_prompt_up_to_the_last_that_predicts_nothing() -> None:
    chosen = TokenSequence([1, 5, 6, 7, 8, 2], [F, F, F, T, T, T])
    rejected = TokenSequence([1, 5, 6, 9, 2], [F, F, F, T, T])
    batch = pairs_of([Pair(chosen, rejected), Pair(rejected, rejected)])
    assert own_tokens(batch) == [[1, 5, 6, 7, 8, 2], [6, 9, 2], [1, 5, 6, 9, 2], [6, 9, 2]]
    assert batch.layout.positions.tolist() == [0, 1, 2, 3, 4, 5, 2, 3, 4, 0, 1, 2, 3, 4, 2, 3, 4]
    assert batch.mask.tolist() == [F, F, T, T, T, F, T, T, F, F, F, T, T, F, T, T, F]
    assert batch.targets[batch.mask].tolist() == [7, 8, 2, 9, 2, 9, 2, 9, 2]
    assert batch.layout.lengths == (6, 5, 5, 5)


def test_of_three_answers_all_share_what_all_begin_with() -> None:
    rows = [TokenSequence([1, 5, *own, 2], [F, F, *[T] * (len(own) + 1)]) for own in ([6], [7, 7], [])]
    other = TokenSequence([1, 4, 2], [F, F, T])
    batch = groups_of([Group(tuple(rows), (0.0, 1.0, 2.0)), Group((rows[0], rows[0], other), (0.0, 1.0, 2.0))])
    assert own_tokens(batch) == [[1, 5, 6, 2], [5, 7, 7, 2], [5, 2], [1, 5, 6, 2], [5, 6, 2], [4, 2]]


def test_neighbours_that_begin_alike_for_a_third_of_their_length_share_that() -> None:
    rows = [[1, 5, 6, 7], [1, 5, 6, 8, 9], [1, 5, 6, 7], [1, 4, 4, 4], [1, 4, 4], [1]]
    batch = batch_of([TokenSequence(row, [F] * len(row)) for row in rows], alike=True)
    assert own_tokens(batch) == [[1, 5, 6, 7], [8, 9], [7], [1, 4, 4, 4], [4], [1]]
    assert batch.layout.lengths == (4, 5, 4, 4, 3, 1)


def test_pairs_lie_chosen_then_rejected() -> None:
    draw = np.random.default_rng(1)
    examples = [pair(draw) for _ in range(4)]
    batch = pairs_of(examples)
    rows = own_tokens(batch)
    for i, example in enumerate(examples):
        assert rows[2 * i] == example.chosen.tokens
        assert rows[2 * i + 1] == example.rejected.tokens[-len(rows[2 * i + 1]) :]
        assert batch.margin[i] == example.margin
        labels = zip(batch.safe[2 * i : 2 * i + 2].tolist(), batch.labelled[2 * i : 2 * i + 2].tolist(), strict=True)
        assert tuple(safe if labelled else None for safe, labelled in labels) == example.safe
        assert tuple(batch.ref_logprobs[2 * i : 2 * i + 2].tolist()) == example.ref_logprobs
    assert len(examples[0]) == len(examples[0].chosen.tokens) + len(examples[0].rejected.tokens)


def test_groups_lie_side_by_side_and_must_be_of_one_size() -> None:
    draw = np.random.default_rng(2)
    examples = [group(draw, size=3) for _ in range(3)]
    batch = groups_of(examples)
    assert batch.size == 3
    assert batch.rewards.tolist() == [r for example in examples for r in example.rewards]
    for own, sequence in zip(own_tokens(batch), [s for e in examples for s in e.sequences], strict=True):
        assert own == sequence.tokens[len(sequence.tokens) - len(own) :]
    with pytest.raises(ValueError, match="different sizes"):
        groups_of([group(draw, size=2), group(draw, size=3)])


def test_experience_keeps_every_column_beside_its_token() -> None:
    draw = np.random.default_rng(3)
    examples = [trajectory(draw) for _ in range(5)]
    batch = experience_of(examples)
    for name in ("logprobs", "values", "advantages", "returns"):
        column = getattr(batch, name)
        assert column.shape == batch.tokens.shape
        assert (column[~batch.mask] == 0).all()
        for part, example in zip(column.split(list(batch.layout.lengths)), examples, strict=True):
            assert torch.equal(part, getattr(example, name))


@pytest.mark.parametrize(
    ("kind", "batch"),
    [
        (Batch, batch_of([TokenSequence([1, 2], [False, True])])),
        (PairBatch, pairs_of([pair(np.random.default_rng(0))])),
        (Groups, groups_of([group(np.random.default_rng(0))])),
        (Experience, experience_of([trajectory(np.random.default_rng(0))])),
    ],
)
def test_batches_move_whole(kind: type, batch: Batch) -> None:
    moved = batch.to("meta")
    assert type(moved) is kind
    assert moved.tokens.is_meta
    assert moved.layout.ends.is_meta
    assert moved.tokens.shape == batch.tokens.shape


@pytest.mark.parametrize("make", [answered, pair, group, trajectory])
@pytest.mark.parametrize("budget", [1, 20, 64, 10_000])
def test_cut_never_splits_never_reorders_and_keeps_the_budget(make, budget: int) -> None:  # type: ignore[no-untyped-def]
    draw = np.random.default_rng(4)
    examples = [make(draw) for _ in range(40)]
    parts = list(cut(examples, budget))
    assert [id(e) for part in parts for e in part] == [id(e) for e in examples]
    for part, following in zip(parts, [*parts[1:], None], strict=True):
        size = sum(tokens_in(e) for e in part)
        assert size <= budget or len(part) == 1
        if following is not None:  # greedy: the next example did not fit any more
            assert size + tokens_in(following[0]) > budget
    assert list(cut([], budget)) == []
