"""The formats, in the order in which a row is held against them: the first that matches is the row's.

Of formats that share keys the one that asks for more stands first. A new format: a file with a `Format`, a line here,
a paragraph in docs/formats.md.
"""

from __future__ import annotations

from ayni.formats import (
    argilla,
    chat,
    hh_rlhf,
    instructions,
    label_studio,
    oasst,
    own,
    pairs,
    pandalm,
    questions,
    ratings,
    sharegpt,
    texts,
    xstest,
)
from ayni.formats.format import Format
from ayni.formats.rows import Row

FORMATS: tuple[Format, ...] = (
    texts.MARKDOWN,
    texts.TEXT,
    # what other programs export with keys of their own
    oasst.OASST,
    label_studio.LABEL_STUDIO_MIN,
    label_studio.LABEL_STUDIO,
    argilla.ARGILLA_RATINGS,
    argilla.ARGILLA,
    sharegpt.SHAREGPT_PAIRS,
    sharegpt.SHAREGPT,
    # what our own stages write
    own.JUDGEMENT,
    own.COMPARISON,
    own.PROMPT,
    own.CONSTRAINT,
    own.PRINCIPLE,
    own.DEMONSTRATION,
    # what is known to be right and wrong
    questions.QUESTION,
    questions.TRUTHFULQA,
    questions.TRUTHFULQA_TARGETS,
    # one answer and what somebody made of it
    ratings.EDITS,
    ratings.RATING_ROWS,
    # everybody's
    chat.MESSAGES,
    pandalm.PANDALM,
    instructions.SELF_INSTRUCT,
    instructions.ALPACA,
    hh_rlhf.HH_RLHF,
    chat.PROMPT_COMPLETION,
    xstest.XSTEST,
    pairs.PAIRS,
    chat.PLAIN_PROMPTS,
    texts.TEXT_ROWS,
)


def format_of(row: Row) -> Format:
    """The format of this row; BadInput when none fits."""
    found = next((format for format in FORMATS if format.matches(row)), None)
    if found is None:
        raise row.error(
            f"no known format has the keys {', '.join(sorted(row.value)) or '(none)'}",
            fix="known: messages, prompt/completion, instruction/output, conversations, prompt/chosen/rejected, text",
        )
    return found
