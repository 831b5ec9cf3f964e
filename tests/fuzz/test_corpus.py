"""Every target takes its corpus, and a few mutations of it: the short, deterministic form of `make fuzz`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import TARGETS, mutate
from tests.fuzz.run import CORPUS, load, seeds

# Mutations: all targets together take two seconds. Those that build a hub or read files are the slow ones.
MANY, FEW = 3000, 300
SLOW = {"hub", "relay", "link", "config_text", "key_files"}

# A seed is there to be understood: what is larger is none.
LARGEST = 4096

FILES = [pytest.param(path, id=f"{path.parent.name}/{path.name}") for path in sorted(CORPUS.glob("*/*"))]


@pytest.mark.parametrize("path", FILES)
def test_what_is_in_the_corpus_breaks_nothing(path: Path) -> None:
    load(path.parent.name)(path.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
def test_mutations_of_the_corpus_break_nothing(target: str) -> None:
    check = load(target)
    for data in mutate.inputs(seeds(target), FEW if target in SLOW else MANY, seed=1):
        check(data)


def test_every_target_has_a_small_corpus_and_every_corpus_a_target() -> None:
    assert sorted(path.name for path in CORPUS.iterdir()) == sorted(TARGETS)
    assert all(path.stat().st_size <= LARGEST for path in CORPUS.glob("*/*"))


def test_the_mutator_is_deterministic_and_bounded() -> None:
    corpus = [b"one", b"two" * 1000]
    assert list(mutate.inputs(corpus, 50, 7)) == list(mutate.inputs(corpus, 50, 7))
    assert max(map(len, mutate.inputs(corpus, 500, 7))) <= mutate.LONGEST
