"""What models and people wrote, made safe to show: escaped, and characters that act without being seen are spelt out.

Bidirectional overrides could make an answer read otherwise than it is stored, terminal escapes and zero-width
characters hide in it. The judge sees them as ‹U+202E›.
"""

from __future__ import annotations

import re
import unicodedata

from markupsafe import Markup, escape

# Controls but tab and newline, soft hyphen, bidirectional marks, zero-width space and joiner-like characters (not the
# joiners that Persian and emoji need), line separators, surrogates, byte-order mark, annotations, language tags.
_UNSEEN = re.compile(
    "([\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ud800-\udfff\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff])\\1*"
)
_MARKS = 1000  # spelt out with a name to hover over; those beyond plainly, so that no answer makes a page of gigabytes


def shown(text: str) -> Markup:
    """HTML that shows `text` and does nothing else."""
    escaped = str(escape(text.replace("\r\n", "\n")))
    marked, count = _UNSEEN.subn(_named, escaped, count=_MARKS)
    return Markup(_UNSEEN.sub(_spelt, marked) if count == _MARKS else marked)


def _named(found: re.Match[str]) -> str:
    name = unicodedata.name(found[1], "control").lower()
    return f'<span class="unseen" title="{name}">{_spelt(found)}</span>'


def _spelt(found: re.Match[str]) -> str:
    """‹U+202E›, and how often where it is repeated."""
    times = f" ×{len(found[0]):,}" if len(found[0]) > 1 else ""
    return f"‹U+{ord(found[1]):04X}{times}›"
