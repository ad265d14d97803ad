"""Duplicates: exact and near ones go, others stay; the hashes estimate Jaccard similarity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ayni.text.dedup import FINGERPRINT, SHINGLE, duplicates, fingerprint, minhash, without_duplicates

VOCABULARY = [f"w{i}" for i in range(3000)]


def document(draw: np.random.Generator, words: int = 120) -> list[str]:
    return draw.choice(VOCABULARY, words).tolist()


def test_exact_duplicates_after_folding() -> None:
    texts = ["The owl sings.", "the  OWL\nsings", "The owl sings at night.", "...", "!!"]
    assert without_duplicates(texts) == ["The owl sings.", "The owl sings at night.", "..."]
    assert without_duplicates(texts, against=["THE OWL SINGS"]) == ["The owl sings at night.", "..."]


def test_near_duplicates_go_and_the_first_stays() -> None:
    draw = np.random.default_rng(0)
    for _ in range(100):
        original = document(draw)
        edited = list(original)
        edited[60] = "changed"  # 5 of 116 shingles: Jaccard 111/121 = 0.92
        pair = [" ".join(original), " ".join(edited)]
        assert without_duplicates(pair) == pair[:1]
        assert without_duplicates(pair, near=False) == pair


@pytest.mark.parametrize(("similarity", "least", "most"), [(0.5, 0, 0), (0.6, 0, 1), (0.7, 0, 5), (0.9, 97, 100)])
def test_the_line_is_drawn_at_four_fifths(similarity: float, least: int, most: int) -> None:
    draw = np.random.default_rng(5)
    dropped = 0
    for _ in range(100):
        original = document(draw, 404)
        # k of 400 shingles are others at the end: (400 − k) / (400 + k) in common
        k = round(400 * (1 - similarity) / (1 + similarity))
        edited = original[:-k] + document(draw, k)
        dropped += len(without_duplicates([" ".join(original), " ".join(edited)])) == 1
    assert least <= dropped <= most


def test_many_fingerprints_may_lie_in_a_file(tmp_path: Path) -> None:
    draw = np.random.default_rng(6)
    texts = [" ".join(document(draw)) for _ in range(60)]
    texts += [text + " and more" for text in texts[:30]] + texts[30:]
    file = tmp_path / "fingerprints"
    file.write_bytes(b"".join(fingerprint(text).tobytes() for text in texts))
    found = duplicates(np.memmap(file, FINGERPRINT, "r"))
    assert found.tolist() == [False] * 60 + [True] * 60
    assert len(duplicates(np.zeros(0, FINGERPRINT))) == 0


def test_distinct_documents_stay() -> None:
    draw = np.random.default_rng(1)
    texts = [" ".join(document(draw)) for _ in range(300)]
    assert without_duplicates(texts) == texts
    # half a document in common: Jaccard about ⅓
    halves = [t.split()[:60] for t in texts[:100]]
    mixed = [" ".join(half + document(draw, 60)) for half in halves]
    assert len(without_duplicates(texts[:100] + mixed)) == 200


def test_held_out_documents_and_their_near_copies_are_taken_out() -> None:
    draw = np.random.default_rng(2)
    heldout = [" ".join(document(draw)) for _ in range(20)]
    fresh = [" ".join(document(draw)) for _ in range(20)]
    copies = [text.upper() + "!" for text in heldout[:10]] + [text + " more words here" for text in heldout[10:]]
    assert without_duplicates(fresh[:10] + copies + fresh[10:], against=heldout) == fresh


def test_short_texts_are_compared_exactly_only() -> None:
    draw = np.random.default_rng(3)
    words = document(draw, 19)
    almost = [*words[:-1], "other"]
    assert len(without_duplicates([" ".join(words), " ".join(almost)])) == 2


def test_minhash_estimates_jaccard() -> None:
    draw = np.random.default_rng(4)
    errors = []
    for share in (0.2, 0.5, 0.8):
        estimates, truths = [], []
        for _ in range(40):
            a = document(draw)
            b = a[: int(120 * share)] + document(draw, 120 - int(120 * share))
            sets = [{tuple(x[i : i + SHINGLE]) for i in range(len(x) - SHINGLE + 1)} for x in (a, b)]
            truths.append(len(sets[0] & sets[1]) / len(sets[0] | sets[1]))
            estimates.append(float((minhash(a) == minhash(b)).mean()))
        errors.append(abs(float(np.mean(estimates) - np.mean(truths))))
    assert max(errors) < 0.05
    assert (minhash(["one", "two"]) == minhash(["one", "two"])).all()
