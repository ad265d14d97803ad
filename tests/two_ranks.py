"""What each of two processes does in the test of a shared rollout: apart, so that it imports little."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from tiny import policy, prompts

from ayni.errors import BadInput
from ayni.parallel import Ranks, leave
from ayni.records import Message, Prompt, Sample, to_dict
from ayni.rollout.answers import two_answers
from ayni.rollout.beams import diverse_rollout
from ayni.rollout.engine import rollout
from ayni.rollout.local import LocalEngine
from ayni.rollout.sampling import Sampling
from ayni.rollout.search import Search, search


def found(engine: LocalEngine) -> list[list[list[int]]]:
    """The tokens that two searches and diverse beams find for each of seven prompts."""
    asked, sampling, width = prompts(7), Sampling(1.0, 1.0, 10), engine.tokenizer.vocab_size

    def guide(prompts: Sequence[Prompt], groups: Sequence[Sequence[Sample]]) -> list[float]:
        return [sum(s.tokens) % width for group in groups for s in group]

    rows = []
    for settings in (Search(step=4), Search(how="tree", step=4, budget=200)):
        results = search(engine, asked, guide, settings, sampling=sampling, seed=3)
        rows += [[list(s.tokens) for s in each.samples] for each in results]
    beams = diverse_rollout(engine, asked, groups=3, penalty=1.0, max_tokens=10)
    return rows + [[list(s.tokens) for s in group] for group in beams]


def work(rank: int, port: int, directory: Path) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "RANK": str(rank)}
    shared = policy()
    shared.ranks = Ranks.current()
    groups = rollout(shared, prompts(7), n=2, sampling=Sampling(1.0, 1.0, 20), seed=3)
    (directory / f"{rank}.json").write_text(json.dumps([[to_dict(s) for s in group] for group in groups]))
    (directory / f"{rank}-found.json").write_text(json.dumps(found(shared)))
    if shared.ranks.leads:  # a person is answered by one process; the other does not take part
        two_answers([shared], [1.0], 8, seed=0)(prompts(1)[0].dialog, "helpfulness")
    narrow = policy(context=26)
    narrow.ranks = shared.ranks
    short, long = (
        Prompt(text, (Message("user", text),)) for text in ("owl", "the hare asks a wise owl why rain falls")
    )
    with pytest.raises(BadInput, match="prompt 1 has"):  # in both, though only one of them reads it
        rollout(narrow, [short, long], n=1, sampling=Sampling(), seed=0)
    shared.ranks.barrier()
    leave(0)  # as every command of several processes does: Python taking it apart would abort it now and then
