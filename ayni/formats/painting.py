"""Tokens painted, by mask or by a critic's values: on a terminal, or as a picture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from rich.cells import cell_len
from rich.text import Text

from ayni.records import TokenSequence
from ayni.text.tokenizer import Tokenizer

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
# From orange over near white to blue: red and green look alike to one man in twelve, and black is read on all of these.
_SCALE = (240, 150, 60), (242, 242, 242), (100, 165, 235)
# of the picture, in pixels: its width at most and at least, its edge, a character, a digit beneath, a line, a box
_WIDEST, _NARROWEST, _EDGE, _CHARACTER, _DIGIT, _LINE, _BOX = 960.0, 320.0, 16.0, 9.6, 6.6, 52.0, 27.0


def paint(sequence: TokenSequence, tokenizer: Tokenizer, values: list[float] | None = None) -> Text:
    """The tokens as coloured text: supervised green, context dim, special ids in reverse.

    With `values` (n,), one number a token, colour shows the value instead: orange for the lowest, blue for the highest.
    Control characters are shown as escapes, so no text can drive the terminal.
    """
    if values is not None and len(values) != len(sequence.tokens):
        raise ValueError(f"{len(values)} values for {len(sequence.tokens)} tokens")
    text = Text()
    low, high = (min(values), max(values)) if values else (0.0, 0.0)
    for index, (token, supervised) in enumerate(zip(sequence.tokens, sequence.mask, strict=True)):
        if values is not None:
            style = f"rgb(0,0,0) on {_shade(values[index], low, high)}"
        else:
            style = "green" if supervised else "dim"
        if token in tokenizer.special:
            style += " reverse"
        text.append(visible(tokenizer.piece(token)), style=style)
    return text


def picture(rows: Sequence[Sequence[tuple[str, float | None]]], title: str) -> str:
    """(piece, value) of the tokens of every row, as an SVG: boxes coloured by value, the number beneath.

    One scale for all rows. A piece whose value is None is context: it has no box. Self-contained, light or dark as the
    reader's system is; no text of a piece is markup.
    """
    values = [value for row in rows for _, value in row if value is not None]
    low, high = (min(values), max(values)) if values else (0.0, 0.0)
    drawn: list[str] = []
    wide, x, y = _NARROWEST, _EDGE, _EDGE
    for row in rows:
        for piece, value in row:
            text, number = visible(piece), "" if value is None else f"{value:z.2f}"
            shown = text.rstrip("\n")
            # context runs on like text, boxes stand apart
            width, gap = cell_len(shown) * _CHARACTER, 0.0
            if value is not None:
                width, gap = max(width, len(number) * _DIGIT) + 8, 2.0
            if x > _EDGE and x + width > _WIDEST - _EDGE:
                x, y = _EDGE, y + _LINE
            drawn.append(_token(shown, number, None if value is None else _shade(value, low, high), x, y, width))
            wide, x = max(wide, x + width + _EDGE), x + width + gap
            if text.endswith("\n"):
                x, y = _EDGE, y + _LINE
        x, y = _EDGE, y + _LINE
    said = "; ".join(" ".join(f"{visible(p).strip()} {v:z.2f}" for p, v in row if v is not None) for row in rows)
    return _FRAME.format(
        width=round(wide),
        height=round(y + 6 + _EDGE),
        title=escape(visible(title)),
        said=escape(f"Every token with the value of the text up to it. {said}"),
        body="\n".join(drawn),
        low=f"{low:z.2f}",
        high=f"{high:z.2f}",
        at=round(y + 6),
    )


_FRAME = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-labelledby="title said">
<title id="title">{title}</title>
<desc id="said">{said}</desc>
<style>
svg {{ color-scheme: light dark; }}
text {{ font: 16px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; text-anchor: middle; white-space: pre; }}
.paper {{ fill: #fff; }} .t {{ fill: #000; }} .c, .n {{ fill: #555; }} .n {{ font-size: 11px; }} .k {{ font-size: 11px; fill: #555; text-anchor: start; }}
@media (prefers-color-scheme: dark) {{ .paper {{ fill: #16171a; }} .c, .n, .k {{ fill: #b5b0a6; }} }}
</style>
<rect class="paper" width="100%" height="100%"/>
{body}
<text class="k" x="16" y="{at}">orange: lowest, {low}; blue: highest, {high}</text>
</svg>
"""  # noqa: E501


def _token(text: str, number: str, colour: str | None, x: float, y: float, width: float) -> str:
    middle, kind = f"{x + width / 2:.1f}", "c" if colour is None else "t"
    box = f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{_BOX:.0f}" rx="4" fill="{colour}"/>'
    written = f'<text class="{kind}" x="{middle}" y="{y + 19:.1f}">{escape(text)}</text>'
    beneath = f'<text class="n" x="{middle}" y="{y + _BOX + 12:.1f}">{number}</text>'
    return written if colour is None else box + written + beneath


def _shade(value: float, low: float, high: float) -> str:
    share = 2 * ((value - low) / (high - low) if high > low else 0.5)
    below, above = _SCALE[int(share >= 1) :][:2]
    mixed = (round(b + (a - b) * (share - (share >= 1))) for b, a in zip(below, above, strict=True))
    return f"rgb({','.join(map(str, mixed))})"


def visible(piece: str) -> str:
    """A piece as it may be printed: ▁ is a space, line breaks are marked and kept, other controls are escaped."""
    if piece == "<0x0A>":
        return "⏎\n"
    byte = _BYTE.fullmatch(piece)
    shown = chr(int(byte[1], 16)) if byte and int(byte[1], 16) < 0x80 else piece.replace("▁", " ")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in shown)
