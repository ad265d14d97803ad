"""`ayni doctor --gpus`: its checks are sound on a CPU, see what is wrong, and run on a GPU where there is one."""

from __future__ import annotations

import pytest
import torch

from ayni.cli import VerbFailure, preflight
from ayni.errors import BadInput
from ayni.model import attention

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("check", preflight.CHECKS)
def test_every_check_is_sound_here(check) -> None:  # type: ignore[no-untyped-def]
    for finding in check(DEVICE):
        assert finding.sound, finding


def test_a_wrong_kernel_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable-length kernel stands in for the one under test; this one forgets that later keys are hidden."""

    def forgetful(q, k, v, offsets, longest):  # type: ignore[no-untyped-def]
        keys, values = (x.repeat_interleave(q.shape[1] // k.shape[1], 1).transpose(0, 1) for x in (k, v))
        return torch.nn.functional.scaled_dot_product_attention(q.transpose(0, 1), keys, values).transpose(0, 1)

    monkeypatch.setattr("ayni.model.layout.takes_variable_length", lambda q: q.dtype == torch.bfloat16)
    monkeypatch.setattr("ayni.model.layout.variable_length_attention", forgetful)
    assert not all(finding.sound for finding in preflight.attention(DEVICE))


def test_a_check_that_fails_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a device")
    nan = [preflight.Finding("one", 0.1, 1.0), preflight.Finding("other", float("nan"), 1.0)]
    monkeypatch.setattr(preflight, "CHECKS", [lambda device: nan])
    failed = preflight.preflight(as_json=False)
    assert isinstance(failed, VerbFailure)
    assert (failed.error.exit_code, str(failed.error)) == (4, "1 of 2 checks are wrong: other")
    out = capsys.readouterr().out
    assert "sound  one" in out
    assert "WRONG  other" in out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so() -> None:
    with pytest.raises(BadInput, match="torch sees no GPU here"):
        preflight.preflight(as_json=False)


def test_the_variable_length_kernel_is_known_by_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    q = torch.zeros(3, 2, 8, dtype=torch.bfloat16)
    assert not attention.takes_variable_length(q)  # on a CPU
    assert attention._variable_length() is not None  # this torch has one
    attention._variable_length.cache_clear()
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", lambda q, k, v, is_causal=False: q)
    assert attention._variable_length() is None  # an older one, that takes other arguments
    attention._variable_length.cache_clear()
