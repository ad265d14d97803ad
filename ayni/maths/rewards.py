"""From two raw scores to one reward, and the margin tables (paper §3.2.2–3.2.3)."""

from __future__ import annotations

import torch
from torch import Tensor

# Llama 2 Table 27: by how much the chosen answer's score should lead.
MARGINS: dict[str, dict[str, float]] = {
    "none": {
        "significantly_better": 0.0,
        "better": 0.0,
        "slightly_better": 0.0,
        "negligibly_better_or_unsure": 0.0,
    },
    "small": {
        "significantly_better": 1.0,
        "better": 2 / 3,
        "slightly_better": 1 / 3,
        "negligibly_better_or_unsure": 0.0,
    },
    "large": {
        "significantly_better": 3.0,
        "better": 2.0,
        "slightly_better": 1.0,
        "negligibly_better_or_unsure": 0.0,
    },
}


def combine_rewards(helpfulness: Tensor, safety: Tensor, is_safety: Tensor, threshold: float = 0.15) -> Tensor:
    """logit(R_c), R_c = R_s if the prompt is tagged or R_s < 0.15, else R_h (paper §3.2.3). All (N,); PPO whitens it.

    Raw scores go in: the logit of σ(raw) is the raw score itself, so nothing is squashed and nothing needs a clamp.
    """
    return torch.where(is_safety | (torch.sigmoid(safety) < threshold), safety, helpfulness)
