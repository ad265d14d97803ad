"""What every test may ask for: the real data, and quiet, single-threaded torch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # the models here are tiny, and the suite runs in several processes


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real models, tokenizers, preferences and texts (`AYNI_DATA`)."""
    where = os.environ.get("AYNI_DATA")
    if where and Path(where).is_dir():
        return Path(where).resolve()
    reason = "AYNI_DATA does not point at the real data (see docs/tour.md)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
