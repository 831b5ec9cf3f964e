"""client.message.decode_body: any bytes of any kind give a Message, whose repr and str work."""

from __future__ import annotations

from qulo.client.message import Message, decode_body, encode_body
from qulo.errors import BadBody
from qulo.protocol.wire import HEADED
from tests.fuzz.chooser import Chooser

KINDS = (0, 1, HEADED, 3, -1, 255)


def check(data: bytes) -> None:
    """Decode it as each kind; what is sound is encoded and decoded to the same."""
    chooser = Chooser(data)
    kind = chooser.pick(KINDS)
    message = decode_body("t", kind, chooser.rest())
    assert isinstance(message, Message)
    assert hasattr(message.headers, "get")
    assert type(message.body) is bytes or "qulo-error" not in message.headers
    try:
        again = decode_body("t", *encode_body(message.body))
        assert repr(again.body) == repr(message.body)  # nan is not equal to itself
    except (BadBody, RecursionError):  # deeper than Python's own repr goes
        return
