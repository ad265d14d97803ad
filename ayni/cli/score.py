"""`ayni score`: the raw scores of comparisons or dialogues by a reward model, or a function of the user's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ayni.cli.lines import write_lines
from ayni.cli.stages import reward_at
from ayni.errors import BadInput
from ayni.evaluate.reward_accuracy import reward_accuracy
from ayni.formats.reading import scan
from ayni.records import Comparison, Demonstration, Dialog, Message, root_of
from ayni.runs.status import located


def score(reward_model: str | Path, data: Path, output: Path | None, as_json: bool) -> dict[str, Any]:
    """Comparisons: rows {index, chosen, rejected, rating} and the accuracies; dialogues: rows {index, score}."""
    data = located(data)
    records = scan(data).records
    reward = reward_at(reward_model)
    if isinstance(records[0], Demonstration):
        dialogs = [record.dialog for record in records]
        scores = reward.scores(dialogs, [record.finished for record in records]).tolist()
        rows = [{"index": index, "score": value} for index, value in enumerate(scores)]
        return write_lines(rows, output, as_json)
    if not isinstance(records[0], Comparison):
        raise BadInput("holds neither comparisons nor finished dialogues", path=data)
    dialogs = [_answered(r, answer) for r in records for answer in (r.chosen, r.rejected)]
    finished = [end for r in records for end in (r.finished_chosen, r.finished_rejected)]
    scores = reward.scores(dialogs, finished).tolist()
    chosen, rejected = scores[::2], scores[1::2]
    ratings = [record.rating for record in records]
    rows = [
        {"index": index, "chosen": good, "rejected": bad, "rating": rating}
        for index, (good, bad, rating) in enumerate(zip(chosen, rejected, ratings, strict=True))
    ]
    if output is not None or not as_json:
        write_lines(rows, output, as_json)
    return reward_accuracy(chosen, rejected, ratings, [root_of(r.prompt.dialog) for r in records]).summary()


def _answered(record: Comparison, answer: str) -> Dialog:
    return (*record.prompt.dialog, Message("assistant", answer))
