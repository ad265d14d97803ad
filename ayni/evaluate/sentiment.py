"""The sentiment of a text by VADER (Hutto and Gilbert 2014), as the paper measures it on BOLD (§4.1, Table 46)."""

from __future__ import annotations

from collections.abc import Callable

from ayni.errors import BadInput


def sentiment_analyser() -> Callable[[str], float]:
    """text → VADER's compound score in [−1, 1]. BadInput where the library, an extra, is not installed."""
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ImportError:
        what = "sentiment is measured by vaderSentiment, which is not installed"
        raise BadInput(what, field="sentiment_prompts", fix="pip install 'ayni[sentiment]'") from None
    analyser = SentimentIntensityAnalyzer()
    return lambda text: float(analyser.polarity_scores(text)["compound"])
