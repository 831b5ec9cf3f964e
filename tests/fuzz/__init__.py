"""Fuzzing: everything that takes bytes or text from somebody else, fed with what nobody should send.

python -m tests.fuzz [TARGET ...] [--runs N] [--seconds N] [--jobs N] [--plain]

TARGET.py     one module per thing that is fed; `check(data)` raises when its property does not hold
chooser.py    bytes as a source of choices, for targets that build their input
mutate.py     a small deterministic mutator, for where Atheris is not installed, and for the ordinary tests
run.py        one target in this process, with Atheris or the mutator
seeds.py      the inputs that fuzzing starts from, made by the real encoders
corpus/TARGET/    seeds, and what once failed; test_corpus.py replays all of it
"""

from __future__ import annotations

TARGETS = (
    "wire_frames",
    "wire_bundles",
    "hub",
    "relay",
    "link",
    "config_text",
    "tokens",
    "permissions",
    "key_files",
    "executor",
    "bodies",
    "zap",
)
