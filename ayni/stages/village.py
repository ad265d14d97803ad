"""The embedded world as files: corpus, prompts in three splits, demonstrations of mixed quality, exercises, checks."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ayni.config import Config as Base
from ayni.errors import BadInput
from ayni.files import write_jsonl
from ayni.records import Task, to_dict
from ayni.run import Run
from ayni.stage import Face
from ayni.village.answers import Quality
from ayni.village.knowledge import SPLITS
from ayni.village.village import village_of

VERSION = 10  # obeying.jsonl: talks with an instruction in every message; exercises after other turns
FACE = Face(
    "records",
    inputs=(),
    leaves={
        "corpus.jsonl": "texts",
        "heldout.jsonl": "texts",
        "prompts-train.jsonl": "prompts",
        "prompts-validation.jsonl": "prompts",
        "prompts-test.jsonl": "prompts",
        "demonstrations.jsonl": "demonstrations",
        "demonstrations-validation.jsonl": "demonstrations",
        "exercises.jsonl": "comparisons",
        "checks.jsonl": "comparisons",
        "attacks-train.jsonl": "prompts",
        "attacks-validation.jsonl": "prompts",
        "attacks-test.jsonl": "prompts",
        "safety-demonstrations.jsonl": "demonstrations",
        "revising.jsonl": "demonstrations",
        "principles.jsonl": "principles",
        "obeying.jsonl": "demonstrations",
        "talks-train.jsonl": "prompts",
        "talks-validation.jsonl": "prompts",
        "talks-test.jsonl": "prompts",
        "constraints-train.jsonl": "constraints",
        "constraints-validation.jsonl": "constraints",
        "constraints-test.jsonl": "constraints",
    },
    sealed=("prompts-test.jsonl", "attacks-test.jsonl", "talks-test.jsonl", "constraints-test.jsonl"),
    by_setting={
        "heldout.jsonl": "heldout_words",
        "demonstrations-validation.jsonl": "heldout_demonstrations",
        "attacks-train.jsonl": "attacks",
        "attacks-validation.jsonl": "attacks",
        "attacks-test.jsonl": "attacks",
        "safety-demonstrations.jsonl": "safety_demonstrations",
        "revising.jsonl": "revising",
        "principles.jsonl": "revising",
        "obeying.jsonl": "obeying",
        "talks-train.jsonl": "obeying",
        "talks-validation.jsonl": "obeying",
        "talks-test.jsonl": "obeying",
        "constraints-train.jsonl": "obeying",
        "constraints-validation.jsonl": "obeying",
        "constraints-test.jsonl": "obeying",
    },
    shared=("village_seed",),
)


class Config(Base):
    village_seed: int = Field(7, description="which village: its people, their facts and what is held out")
    words: int = Field(1_800_000, ge=1, description="size of the corpus, about 1.3 tokens a word")
    heldout_words: int = Field(0, ge=0, description="of documents like the corpus's, none of which is in it")
    demonstrations: int = Field(6000, ge=1)
    quality: Quality = Field("mixed", description="of the demonstrations: a vendor's, clean (paid to think), or noisy")
    heldout_demonstrations: int = Field(
        0, ge=0, description="clean ones, of validation prompts: what should be foreseen"
    )
    exercises: int = Field(20000, ge=0, description="comparisons of the school's books; they cost no annotator")
    checks: int = Field(80, ge=0, description="comparisons whose answer is beyond doubt, to check annotators by")
    prompts: int | None = Field(None, ge=1, description="training prompts; default: all")
    demonstrated: Literal["all", "helpfulness"] = Field("all", description="which prompts the demonstrations answer")
    attacks: int = Field(0, ge=0, description="training prompts of the red team, with all held-out ones; 0: neither")
    safety_demonstrations: int = Field(0, ge=0, description="refusals as guidelines ask for, in a file of their own")
    preprompted: float = Field(0.0, ge=0, le=1, description="share of these that stand under a safety preprompt")
    revising: int = Field(
        0, ge=0, description="demonstrations that criticise an answer by a principle, or revise it; with the principles"
    )
    obeying: int = Field(
        0,
        ge=0,
        description="demonstrations that obey a constraint; with them come constraints and talks of twenty turns",
    )


def run(config: Config, inputs: dict[str, Any], run: Run) -> None:
    run.begin_anew()
    if config.preprompted and not config.safety_demonstrations:
        raise BadInput("is a share of no safety demonstrations", field="preprompted", fix="set safety_demonstrations")
    village = village_of(config.village_seed)
    attacks = village.attacks("train", config.attacks)
    corpus = village.corpus(config.words)
    write_jsonl(run.directory / "corpus.jsonl", ({"text": text} for text in corpus))
    if config.heldout_words:
        read = set(corpus)
        held = [text for text in village.corpus(config.heldout_words, seed=1) if text not in read]
        write_jsonl(run.directory / "heldout.jsonl", ({"text": text} for text in held))
    for split in SPLITS:
        prompts = village.prompts(split, config.prompts if split == "train" else None)
        write_jsonl(run.directory / f"prompts-{split}.jsonl", map(to_dict, prompts))
        run.say(f"{len(prompts)} {split} prompts")
    if config.attacks:
        for split in SPLITS:
            asked = attacks if split == "train" else village.attacks(split)
            write_jsonl(run.directory / f"attacks-{split}.jsonl", map(to_dict, asked))
            run.say(f"{len(asked)} {split} attacks")
    if config.safety_demonstrations:
        safe = village.safety_demonstrations(config.safety_demonstrations, attacks, config.preprompted)
        write_jsonl(run.directory / "safety-demonstrations.jsonl", map(to_dict, safe))
    if config.revising:
        write_jsonl(run.directory / "revising.jsonl", map(to_dict, village.revising(config.revising, attacks)))
        write_jsonl(run.directory / "principles.jsonl", map(to_dict, village.principles()))
    task: Task | None = None if config.demonstrated == "all" else "helpfulness"
    demonstrations = village.demonstrations(config.demonstrations, task=task, quality=config.quality)
    write_jsonl(run.directory / "demonstrations.jsonl", map(to_dict, demonstrations))
    if config.heldout_demonstrations:
        good = village.demonstrations(config.heldout_demonstrations, quality="clean", split="validation")
        write_jsonl(run.directory / "demonstrations-validation.jsonl", map(to_dict, good))
    write_jsonl(run.directory / "exercises.jsonl", map(to_dict, village.exercises(config.exercises)))
    write_jsonl(run.directory / "checks.jsonl", map(to_dict, village.checks(config.checks)))
    if config.obeying:
        write_jsonl(run.directory / "obeying.jsonl", map(to_dict, village.obeying(config.obeying)))
        for split in SPLITS:
            write_jsonl(run.directory / f"talks-{split}.jsonl", map(to_dict, village.talks(split)))
            write_jsonl(run.directory / f"constraints-{split}.jsonl", map(to_dict, village.constraints(split)))
    run.say(f"{len(corpus)} documents, {len(demonstrations)} demonstrations")
    run.log(0, documents=len(corpus), demonstrations=len(demonstrations))
