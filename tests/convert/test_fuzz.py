"""A few hundred mutations of model files; tests/support/fuzz_models.py makes as many as there is time for."""

from __future__ import annotations

import pytest

from tests.support.fuzz_models import check_sentence, fuzz, small_files


def test_mutated_models(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ends = fuzz(small_files(tmp_path), 400, seed=11, keep=tmp_path)
    assert sum(ends.values()) == 400
    # mutations that change nothing, or everything, would test nothing
    computed = sum(count for name, count in ends.items() if name.endswith(": computed"))
    assert 0 < computed < 200


def test_the_fuzzer_notices(tmp_path, monkeypatch):
    """An exception that is no refusal, and text that is no sentence, end it."""
    monkeypatch.chdir(tmp_path)
    files = small_files(tmp_path)
    monkeypatch.setattr("tests.support.fuzz_models.list_heads", lambda *_: {}["key"])
    with pytest.raises(KeyError):
        fuzz(files, 1, seed=0, keep=tmp_path)
    for text in ("", "two\nlines", "x" * 2000):
        with pytest.raises(AssertionError):
            check_sentence(text)
