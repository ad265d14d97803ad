"""Reward models of several folds taken together: each pair is judged by those models that did not learn from it.

Where pairs are few a fifth of them says little. Of five folds every pair is held out once; and of several models of
each fold, which differ in their seeds, the mean has less of chance in it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ayni.config import Config as Base
from ayni.errors import BadInput
from ayni.evaluate.leads import LEADS, accuracy, accuracy_gain, added, baseline_results, read_leads, together
from ayni.evaluate.results import result, write_results
from ayni.files import write_jsonl
from ayni.records import to_dict
from ayni.run import Run, name_of
from ayni.stage import Face, Input

VERSION = 1
FACE = Face(
    "evaluates",
    inputs=(
        Input("leads", "leads.jsonl", ("leads",), many=True),
        Input("against", "leads.jsonl", ("leads",), optional=True),
    ),
    leaves={"leads.jsonl": "leads"},
)


class Config(Base):
    """Nothing is set here: what the models held out says it all."""


def run(config: Config, inputs: dict[str, Any], run: Run) -> None:
    run.begin_anew()
    files = [Path(path) for path in inputs["leads"]]
    leads = together(read_leads(path) for path in files)
    if not leads:
        raise BadInput("no pair was held out", path=files[0], fix="hold some out: fold: 1/5, or a heldout_share")
    if len(axes := sorted({lead.axis for lead in leads})) > 1:
        raise BadInput(f"comparisons of {' and '.join(axes)} in one", path=files[0], field="axis", fix="cross one task")
    run.say(f"{len(leads)} pairs held out by {len(files)} models")
    where: dict[str, Any] = {"axis": axes[0], "split": "heldout", "judge": "labels", "model": run.name}
    rows = [result("accuracy", accuracy([lead.model for lead in leads], leads), **where)]
    rows += [*baseline_results(leads, **where), added(leads, **where)]
    if inputs.get("against"):
        path = Path(inputs["against"])
        other = {lead.pair: lead for lead in read_leads(path)}
        both = [lead for lead in leads if lead.pair in other]
        if not both:
            raise BadInput("none of these pairs was held out there", path=path, fix="cross the same comparisons")
        run.say(f"{len(both)} of them {name_of(path.parent)} held out, too")
        gain = accuracy_gain([lead.model for lead in both], [other[lead.pair].model for lead in both], both)
        rows.append(result("accuracy_gain", gain, against=name_of(path.parent), **where))
    if run.leads:
        write_jsonl(run.directory / LEADS, map(to_dict, leads))
        write_results(run.directory / "results.json", rows)
