"""Markdown books as plain documents: one for every chapter, paragraphs kept, markup gone."""

from __future__ import annotations

import re

_HEADING = re.compile(r"^ {0,3}#{1,6}[ \t]+(.*)$")
_RULE = re.compile(r"^ {0,3}(?:(?:-[ \t]*){3,}|(?:\*[ \t]*){3,}|(?:_[ \t]*){3,}|=+)$")
_FENCE = re.compile(r"^ {0,3}(?:```|~~~)")
_QUOTE = re.compile(r"^ {0,3}(?:> ?)+")
# What is inside has a longest length, or a text that opens over and over and never closes is looked through each time.
_TARGET = r"\([^)\s]{0,2000}(?:\s{1,9}\"[^\"]{0,1000}\")?\)"
_INLINE = (
    (re.compile(r"<!--.{0,5000}?-->", re.DOTALL), ""),
    (re.compile(rf"!\[([^\]]{{0,1000}})\]{_TARGET}"), ""),  # pictures
    (re.compile(rf"\[([^\]]{{1,1000}})\]{_TARGET}"), r"\1"),  # links keep their text
    (re.compile(r"(?<![\w*\\])(\*{1,3})(?=[^\s*])(.{1,1000}?)(?<=[^\s*\\])\1(?![\w*])", re.DOTALL), r"\2"),
    (re.compile(r"(?<![\w\\])(_{1,3})(?=[^\s_])(.{1,1000}?)(?<=[^\s_\\])\1(?!\w)", re.DOTALL), r"\2"),
    (re.compile(r"\\([\\`*_{}\[\]()#+.!<>~|-])"), r"\1"),  # escapes last: an escaped star is no emphasis
)


def _without_header(text: str) -> str:
    """Without the title block: `# Title: …` down to a rule, or YAML front matter between two `---`."""
    lines = text.lstrip("\n").split("\n")
    if lines[0].startswith("# Title:") or lines[0].strip() == "---":
        for number, line in enumerate(lines[1:60], 1):
            if _RULE.match(line):
                return "\n".join(lines[number + 1 :])
    return text


def _plain(lines: list[str]) -> str:
    """Paragraphs without markup, one blank line between two."""
    kept = [
        "" if _RULE.match(line) or _FENCE.match(line) else _QUOTE.sub("", line.replace("\t", "    ")).rstrip()
        for line in lines
    ]
    paragraphs = re.split(r"\n{2,}", "\n".join(kept).strip("\n"))
    for pattern, replacement in _INLINE:
        paragraphs = [pattern.sub(replacement, paragraph) for paragraph in paragraphs]
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph.strip())


def markdown_documents(text: str) -> list[str]:
    """The chapters as plain text, each with its headings as first paragraphs; headings without text join the next."""
    documents: list[str] = []
    headings: list[str] = []
    body: list[str] = []

    def close() -> None:
        plain = _plain(body)
        if plain:
            documents.append("\n\n".join([*(_plain([heading]) for heading in headings), plain]))
            headings.clear()
        body.clear()

    for line in _without_header(text.replace("\r\n", "\n")).split("\n"):
        heading = _HEADING.match(line)
        if heading is None:
            body.append(line)
            continue
        close()
        if title := heading[1].rstrip(" \t").rstrip("#").rstrip(" \t"):
            headings.append(title)
    close()
    return documents
