"""What hypothesis draws from: few tokens, so that patterns and topics meet often."""

from __future__ import annotations

from hypothesis import strategies as st

TOKENS = ("a", "b", "c", "$qulo", "local", "s")

tokens = st.sampled_from(TOKENS)
topics = st.lists(tokens, min_size=1, max_size=5).map(".".join)
patterns = st.builds(
    lambda parts, rest: ".".join([*parts, ">"] if rest or not parts else parts),
    st.lists(st.sampled_from([*TOKENS, "*", "*"]), max_size=5),
    st.booleans(),
)
