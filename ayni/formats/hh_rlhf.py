"""hh-rlhf: two transcripts of one dialogue up to the last answer.

What the published files themselves do (speakers that do not alternate, empty turns, transcripts that part too early) is
left out and counted; what no published file does is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ayni.formats.building import make_comparison
from ayni.formats.fields import check_text
from ayni.formats.format import Format, with_prompts
from ayni.formats.rows import Row, Skip
from ayni.records import Comparison, Message

_SPEAKER = re.compile(r"(?:\A|\n\n)(Human|Assistant):")


def _transcript(row: Row, field: str) -> list[tuple[str, str]]:
    text = check_text(row, row.value.get(field), field)
    head, *parts = _SPEAKER.split(text)
    if head.strip() or not parts or parts[0] != "Human":
        raise row.error("a transcript starts with a blank line and `Human:`", field)
    if parts[-2] != "Assistant":
        raise row.error("a transcript ends with an `Assistant:` turn", field)
    return [(speaker, text.strip()) for speaker, text in zip(parts[::2], parts[1::2], strict=True)]


def hh_pairs(row: Row) -> Iterator[Comparison]:
    """hh-rlhf: two transcripts of one dialogue up to the last answer.

    Left out and counted, because the published files hold them: speakers that do not alternate, empty turns,
    transcripts that part before the last answer.
    """
    chosen, rejected = _transcript(row, "chosen"), _transcript(row, "rejected")
    for turns in (chosen, rejected):
        if any(speaker != ("Human", "Assistant")[index % 2] for index, (speaker, _) in enumerate(turns)):
            raise Skip("speakers do not alternate")
        if not all(text for _, text in turns):
            raise Skip("a turn is empty")
    if chosen[:-1] != rejected[:-1]:
        raise Skip("the transcripts differ before the last answer")
    dialog = tuple(Message("user" if speaker == "Human" else "assistant", text) for speaker, text in chosen[:-1])
    yield make_comparison(row, dialog, chosen[-1][1], rejected[-1][1], "chosen")


def _matches(row: Row) -> bool:
    texts = [row.value.get(name) for name in ("chosen", "rejected")]
    return not row.has("prompt") and all(isinstance(text, str) for text in texts)


HH_RLHF = Format("hh_rlhf", _matches, with_prompts("comparisons", hh_pairs))
