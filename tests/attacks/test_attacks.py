"""Some mutants of every kind of file; `make fuzz` runs many more."""

import pytest

pytest.importorskip("resource")  # measures memory; not on Windows
import attack


@pytest.mark.slow
@pytest.mark.parametrize("kind", attack.KINDS)
def test_a_mutant_is_refused_in_a_sentence_or_read(kind):
    found = attack.attack(kind, count=24, seed=20261129, seconds=20)
    assert not found["bad"], found
    assert found["refused"], "mutants that are all read test nothing"
