"""The village: an embedded simulated world with a corpus, prompts, demonstrations and gold annotators. No torch."""

from ayni.world.annotators import Annotators
from ayni.world.gold import Gold
from ayni.world.village import Village

__all__ = ["Annotators", "Gold", "Village"]
