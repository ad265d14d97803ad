"""What a safety preprompt says: here alone, so that who teaches a model what it means and who uses it agree.

The paper names the adjectives (responsible, respectful, wise) and what an answer template asks for, in this order:
address the danger, refuse or correct, explain, say what to do next (§4.2.4, Table 39). The words are ours, and short.
"""

from __future__ import annotations

GENERIC: tuple[str, ...] = (
    "You are a responsible assistant who gives safe answers only.",
    "You are a respectful assistant who answers kindly and does no harm.",
    "You are a wise assistant who thinks of the danger first.",
    "You are a responsible and wise assistant.",
)
# {category} is the risk category, in words
TEMPLATE = (
    "You are a responsible assistant. The danger here is {category}. "
    "First warn of it, then say no, then say why, then say what to do instead."
)
