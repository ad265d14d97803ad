"""What all plots share: the page's colours, one style, and a figure as an element of the page.

Each plot is drawn in stand-in colours that are then replaced by CSS variables, so one drawing serves light and dark.
Titles and legends are the page's; what little text enters a plot, matplotlib escapes.
"""

from __future__ import annotations

import io
import re
from typing import Any

from markupsafe import Markup
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

COLOURS = ("ink", "muted", "line", "card", "blue", "teal", "clay", "ochre", "plum")
STAND_IN = {name: f"#0a0b{index:02x}" for index, name in enumerate(COLOURS)}
SIZE = (4.7, 2.35)  # inches of 72 units: at a phone's width one unit is about one pixel
WIDE = 5.6  # two of these stand side by side where three of the others do
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ayni",
    "font.size": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": STAND_IN["line"],
    "axes.labelcolor": STAND_IN["muted"],
    "axes.labelsize": 10.5,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": STAND_IN["line"],
    "grid.linewidth": 0.8,
    "text.color": STAND_IN["ink"],
    "text.parse_math": False,
    "xtick.color": STAND_IN["line"],
    "ytick.color": STAND_IN["line"],
    "xtick.labelcolor": STAND_IN["muted"],
    "ytick.labelcolor": STAND_IN["muted"],
    "ytick.major.size": 0,
    "xtick.major.size": 3,
}


def in_percent(axis: Axis) -> None:
    """Ticks of whole percents: 2.5 of them apart they would be rounded to odd places."""
    axis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(PercentFormatter(1, decimals=0))


def as_svg(figure: Figure) -> Markup:
    """The figure as an element to place in HTML: no prolog, no style sheet, no names that could clash."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r' id="(?!m[0-9a-f]{10}"|p[0-9a-f]{10}")[^"]*"', "", text)  # ids of markers and clips are hashes
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = re.sub(r"(font: (?:[a-z0-9]+ )*[0-9.]+px) [^;\"]*", r"\1 var(--sans)", text)
    text = re.sub(r"(<svg[^>]*?) width=\"[^\"]*\" height=\"[^\"]*\"", r'\1 aria-hidden="true"', text, count=1)
    for name, colour in STAND_IN.items():
        text = text.replace(colour, f"var(--{name})")
    return Markup(re.sub(r"\n\s*", "\n", text))
