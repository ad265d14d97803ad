"""Ghost Attention's records (paper §3.3): told always while sampling, once in the record, one answer trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_stages import CONSTRAINTS, Small, prepare, talks
from tiny import policy, tokenizer

from ayni.errors import BadInput
from ayni.files import write_jsonl
from ayni.formats.reading import read_constraints_of, read_demonstrations
from ayni.records import Message, Prompt, Sample, attached, instruction, to_dict
from ayni.reward.combine import Scores, load_combined
from ayni.rollout.conversations import own_answers
from ayni.rollout.sampling import Sampling
from ayni.rollout.store import read_groups
from ayni.run import Run
from ayni.seeds import rng
from ayni.stages import ghost
from ayni.stages.ghost import Config, Synthesis, records_of, told_always, told_in
from ayni.text.chat import render, render_prompt
from ayni.text.listed import listed
from ayni.train.batch import batch_of

WORDS = tokenizer()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return prepare(tmp_path_factory.mktemp("inputs"))["ghost"]


def answer(text: str, finished: Any = "stop") -> Sample:
    return Sample("p", "helpfulness", (1,), (5, 2), (-1.0, -1.0), text, finished)


def turn(user: str, said: str) -> list[int]:
    return [WORDS.bos, *WORDS.encode(f"[INST] {user} [/INST] {said} "), WORDS.eos]


def test_the_record_has_the_tokens_and_the_mask_of_the_paper(tmp_path: Path) -> None:
    """[u1, a1, …, un, an] with the instruction in u1 alone; the loss is zero but on the last answer (§3.3)."""
    (prompt,) = talks(1)
    u1, u2, u3 = (m.content for m in prompt.dialog if m.role == "user")
    given = [answer("owl one"), answer("hare two"), answer("hill three")]
    (record,) = records_of(prompt, "Be an owl.", given, 1, Run(tmp_path / "r", name="ghost"))
    sequence = render(record.dialog, WORDS, record.train, record.finished)
    expected = [turn(f"Be an owl. {u1}", "owl one"), turn(u2, "hare two"), turn(u3, "hill three")]
    assert sequence.tokens == [token for each in expected for token in each]
    last = [WORDS.bos, *WORDS.encode(f"[INST] {u3} [/INST]")]
    before = len(expected[0]) + len(expected[1]) + len(last)
    assert sequence.mask == [False] * before + [True] * (len(sequence.tokens) - before)
    batch = batch_of([sequence])
    assert batch.targets[batch.mask].tolist() == expected[2][len(last) :]  # the answer and its EOS
    assert "NOBODY" not in "".join(m.content for m in record.dialog)


def test_while_sampling_the_instruction_is_with_every_message() -> None:
    (prompt,) = talks(1)
    always = told_always(replace(prompt, dialog=(Message("system", "Sing."), *prompt.dialog)), "Be an owl.")
    users = [m.content for m in always.dialog if m.role == "user"]
    assert users == [f"Be an owl. {m.content}" for m in prompt.dialog if m.role == "user"]
    assert always.dialog[0] == Message("system", "Sing.")
    engine = policy(0, context=400)
    (given,) = own_answers(engine, [always], sampling=Sampling(1.0, 1.0, 6), seed=1, say=print)
    history = (*always.dialog[:2], Message("assistant", given[0].text), always.dialog[3])
    assert list(given[1].prompt_tokens) == render_prompt(history, WORDS)


def test_a_dialogue_ends_with_its_last_fit_answer(tmp_path: Path) -> None:
    (prompt,), run = talks(1), Run(tmp_path / "r", name="ghost")
    assert records_of(prompt, "Be.", [answer("cut", "length")], 1, run) == []
    assert records_of(prompt, "Be.", [answer("  ")], 1, run) == []
    (record,) = records_of(prompt, "Be.", [answer("a"), answer("b"), answer("c", "length")], 1, run)
    assert [m.content for m in record.dialog if m.role == "assistant"] == ["a", "b"]
    three = records_of(prompt, "Be.", [answer("a"), answer("b"), answer("c")], 9, run)
    assert [len(r.dialog) for r in three] == [2, 4, 6]
    assert all(r.train == "last" and r.dialog[0].content.startswith("Be. ") for r in three)
    assert all(not m.content.startswith("Be. ") for r in three for m in r.dialog[1:])
    assert [len(r.dialog) for r in records_of(prompt, "Be.", [answer("a"), answer("b"), answer("c")], 1, run)] == [6]


def test_one_or_two_constraints_of_different_kinds_half_of_them_short() -> None:
    drawn = [told_in(CONSTRAINTS, Config(), rng(i)) for i in range(400)]
    alone = {instruction([c], short=short) for c in CONSTRAINTS for short in (True, False)}
    both = {
        instruction([a, b], short=short)
        for a in CONSTRAINTS for b in CONSTRAINTS for short in (True, False) if a.kind != b.kind
    }  # fmt: skip
    assert set(drawn) == alone | both
    assert 150 < sum(text in alone for text in drawn) < 250
    assert 150 < sum("Be" not in text for text in drawn) < 250
    assert {told_in(CONSTRAINTS, Config(combine=1, shortened=1.0), rng(i)) for i in range(40)} == {"owl!", "hare!"}
    assert instruction([replace(CONSTRAINTS[0], short="")], short=True) == "Be a owl."
    assert attached("Be.", Message("user", "Why?")) == Message("user", "Be. Why?")


def test_the_stage_keeps_the_better_answer_and_trains_on_the_last(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best: list[str] = []

    def watched(*given: Any) -> Any:
        reward = load_combined(*given)

        class Watched:
            context = reward.context

            def __call__(self, asked: list[Prompt], drawn: list[list[Sample]]) -> Scores:
                scores = reward(asked, drawn)
                for group, row in zip(drawn, scores.combined.view(len(asked), -1), strict=True):
                    ended = [k for k, sample in enumerate(group) if sample.finished == "stop"] or range(len(group))
                    best.append(group[max(ended, key=row.tolist().__getitem__)].text)
                return scores

        return Watched()

    monkeypatch.setattr(ghost, "load_combined", watched)
    small.execute(tmp_path / "g")
    records = read_demonstrations(tmp_path / "g" / "records.jsonl")
    groups = {group[0].prompt_id: group for group in read_groups(tmp_path / "g" / "answers.jsonl")}
    assert {r.train for r in records} == {"last"}
    assert {r.finished for r in records} == {"stop"}
    told = {instruction([c], short=s) for c in CONSTRAINTS for s in (True, False)}
    for record in records:
        id = record.source.removeprefix("ghost:")
        said = [m.content for m in record.dialog if m.role == "assistant"]
        assert said == [sample.text for sample in groups[id]][: len(said)]
        first, *others = [m.content for m in record.dialog if m.role == "user"]
        assert any(first.startswith(text) for text in told)
        assert not any(other.startswith(text) for text in told for other in others)
    assert read_constraints_of([tmp_path / "g" / "constraints.jsonl"]) == CONSTRAINTS
    # of every turn's answers the one that the reward model likes best
    assert sorted(best) == sorted(sample.text for group in groups.values() for sample in group)


def test_what_the_model_lists_becomes_constraints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = iter([["Three hobbies are chess, old maps and chess."], ["No idea."]])
    monkeypatch.setattr(ghost, "rollout", lambda *args, **kwargs: [[answer(text) for text in next(said)]])
    hobby = Synthesis(kind="hobby", ask="Name three hobbies.", long="You love {x}.", short="Hobby: {x}.")
    run = Run(tmp_path / "r", name="ghost", quiet=True)
    found = ghost.synthesised(policy(), Config(synthesis=(hobby, replace_ask(hobby))), run)
    assert [(c.kind, c.long, c.short) for c in found] == [
        ("hobby", "You love chess.", "Hobby: chess."),
        ("hobby", "You love old maps.", "Hobby: old maps."),
    ]


def replace_ask(synthesis: Synthesis) -> Synthesis:
    return synthesis.model_copy(update={"ask": "Name three figures."})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Three hobbies are chess, old maps and dancing. I hope that helps!", ["chess", "old maps", "dancing"]),
        ("Of course! Here are two figures: the owl and the cow.", ["the owl", "the cow"]),
        ("Sure:\n1. Tennis - a sport\n2. **Chess**\n", ["Tennis", "Chess"]),
        ("- Oscar Wilde\n- Napoleon", ["Oscar Wilde", "Napoleon"]),
        ("One of the fruits is apples.", []),
        ("I do not know that.", []),
        ("", []),
    ],
)
def test_lists_are_read_as_people_write_them(text: str, expected: list[str]) -> None:
    assert listed(text) == expected


def test_bad_input_is_one_line(small: Small, tmp_path: Path) -> None:
    inputs = dict(small.inputs)
    with pytest.raises(BadInput, match="n above 1 and a reward model belong together"):
        small.execute(tmp_path / "a", n=1)
    safety_alone = {**small.inputs, "reward_safety": small.inputs["reward"]}
    del safety_alone["reward"]
    with pytest.raises(BadInput, match="a safety model alone cannot choose"):
        Small("ghost", {**small.settings, "n": 1}, safety_alone).execute(tmp_path / "s")
    del inputs["constraints"]
    with pytest.raises(BadInput, match="constraints: no constraint is given"):
        Small("ghost", small.settings, inputs).execute(tmp_path / "b")
    with pytest.raises(BadInput, match=r"synthesis.0.long: .*expected \{x\}"):
        small.execute(tmp_path / "c", synthesis=[{"ask": "Name two.", "long": "Be one."}])
    with pytest.raises(BadInput, match=r"synthesis.0.ask: .*must not contain \[INST\]"):
        small.execute(tmp_path / "c", synthesis=[{"ask": "[INST] Name two.", "long": "Be {x}."}])
    write_jsonl(tmp_path / "tags.jsonl", [{"id": "a", "long": "Say [INST]."}])
    with pytest.raises(BadInput, match=r"tags.jsonl:1: long: a message must not contain \[INST\]"):
        read_constraints_of([tmp_path / "tags.jsonl"])
    write_jsonl(tmp_path / "twice.jsonl", [to_dict(CONSTRAINTS[0])] * 2)
    with pytest.raises(BadInput, match="is the id of another constraint too"):
        read_constraints_of([tmp_path / "twice.jsonl"])
    assert not (tmp_path / "a").exists()


def test_conversations_end_where_the_context_does() -> None:
    said: list[str] = []
    asked, sampling = talks(1), Sampling(1.0, 1.0, 40)
    (given,) = own_answers(policy(0, context=90), asked, sampling=sampling, seed=1, say=said.append)
    assert 0 < len(given) < 3
    assert any("fill the context" in line for line in said)
    (read,) = own_answers(policy(0, context=400), asked, sampling=sampling, seed=1, say=said.append, read=120)
    assert 0 < len(read) < 3
    assert all(len(sample.prompt_tokens) + 40 <= 120 for sample in read)
    cut, wide = Sampling(1.0, 1.0, 1), policy(0, context=400)
    (alone,) = own_answers(wide, asked, sampling=cut, seed=1, say=print, goes_on=lambda answer: answer.fit)
    assert [sample.finished for sample in alone] == ["length"]
