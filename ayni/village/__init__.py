"""The village: an embedded simulated world with a corpus, prompts, demonstrations and gold annotators. No torch."""

from ayni.village.annotators import SimulatedAnnotators
from ayni.village.gold import Gold
from ayni.village.village import Village

__all__ = ["Gold", "SimulatedAnnotators", "Village"]
