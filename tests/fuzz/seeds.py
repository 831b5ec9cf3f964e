"""Writes the inputs that fuzzing starts from, made by the real encoders: python -m tests.fuzz.seeds

Run it after the wire or a configuration has changed; what fuzzing found lies beside them and is left alone.
"""

from __future__ import annotations

import random
from pathlib import Path

import msgpack

from qulo.client.message import encode_body
from qulo.net.curve import Key
from qulo.net.token import Token, encode
from qulo.protocol import wire
from tests.fuzz.key_files import PUBLIC, SECRET
from tests.fuzz.run import CORPUS

CONF = Path(__file__).parents[2] / "conf"


_RECORDS: dict[str, wire.Record] = {
    "hello": [wire.HELLO, wire.VERSION, b"instance", "web1", "agent", None, 0, 0, {"version": "1"}],
    "publish": [wire.PUBLISH, "a.b", wire.RAW, [b"one", b"two"]],
    "subscribe": [wire.SUBSCRIBE, 1, "a.>", "group"],
    "request": [wire.REQUEST, 1, "math.add", 1000, False, wire.PACKED, b"\x92\x01\x02"],
    "gap": [wire.GAP, 1, "a.>", 7, 1, None, "restart"],
    "work": [wire.WORK, 1, "a", wire.HEADED, [b"x"]],
}


def _story(seed: int, length: int) -> bytes:
    """Choices, for targets that build their input."""
    return random.Random(seed).randbytes(length)


def _stories() -> dict[str, bytes]:
    return {"short": _story(1, 40), "long": _story(2, 400), "in-order": bytes(range(256))}


def _configs() -> dict[str, bytes]:
    rules = (
        b'permissions:\n  - allow: [publish, subscribe]\n    names: ["web*", "*/local"]\n    topics: ["a.>"]\n'
        b'  - {deny: request, names: "*", topics: "$qulo.>"}\n'
    )
    values = b"listen: tcp://127.0.0.1:0\npublish: tcp://[::1]:7371\nmax_message: 64K\nheartbeat: 300ms\ncurve: off\n"
    anchors = b'local_mode: &a "0660"\nlocal_group: *a\nmax_rate: 10\nlog_file: !!str /tmp/x\n? [a]\n: {b: c}\n'
    sample = (CONF / "qagent.yaml").read_text().replace("\n#", "\n").encode()
    return {
        "rules": b"\0" + rules,
        "values": b"\0" + values,
        "anchors": b"\1" + anchors,
        "sample": b"\1" + sample[-900:],
    }


def _key_files() -> dict[str, bytes]:
    pair = PUBLIC + b" " + SECRET + b"\n"
    ticket = b'{"public": "' + PUBLIC + b'", "name": null, "expires": 2e9, "uses": 1}'
    two = b"\0\0" + bytes([len(PUBLIC)]) + PUBLIC
    whole = bytes([len(pair)]) + pair + b"\0\2" + two + b"\0\1" + two[2:] + ticket
    return {"pair": bytes([len(pair)]) + pair + b"\0\0{}", "directory": whole}


def _all() -> dict[str, dict[str, bytes]]:
    token = encode(Token(("tcp://master.example:7370", "tcp://[::1]:1"), PUBLIC, Key(b"", SECRET)))
    run = ["a.b", 1, 0, b"instance", wire.RAW, [b"x"]]
    bundle = wire.encode_bundle(b".a.b\0", 7, [run])
    own = wire.encode_own(b"t" * 16, [[wire.TIED], [wire.READY, 1, 5, 5]])
    large = wire.encode(3, 0, [[wire.PUBLISH, "a", wire.RAW, [b"x" * 70_000]]])[:4000]
    frames = {name: wire.encode(1, 0, [record]) for name, record in _RECORDS.items()}
    bodies = {"value": (wire.PACKED, msgpack.packb({"t": 21.5})), "headers": encode_body([1], {"h": 1})}
    return {
        "wire_frames": frames | {"large": large},
        "wire_bundles": {"bundle": bytes([6]) + bundle, "own": bytes([own.index(0) + 1]) + own},
        "hub": _stories(),
        "relay": _stories(),
        "link": _stories(),
        "config_text": _configs(),
        "tokens": {"token": token.encode(), "content": msgpack.packb([["tcp://a:1"], b"m" * 32, b"s" * 32])},
        "permissions": _stories(),
        "key_files": _key_files(),
        "executor": {"ping": msgpack.packb([1, "ping", None]), "unknown": msgpack.packb([2**32, "run", {"a": [1]}])},
        "bodies": {name: bytes([kind]) + data for name, (kind, data) in bodies.items()},
        "zap": _stories(),
    }


def main() -> None:
    """Write them."""
    for target, files in _all().items():
        (CORPUS / target).mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (CORPUS / target / name).write_bytes(data)


if __name__ == "__main__":
    main()
