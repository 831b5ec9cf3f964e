"""Key files and directories of accepted keys: any content gives keys or ConfigError, and no secret is in an error."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from qulo.errors import ConfigError
from qulo.net import curve
from qulo.net.keys import Keys
from tests.fuzz.chooser import Chooser

PUBLIC = b"rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
SECRET = b"JTKVSB%%)wK0E.X)V>+}o?pNmC{O&4W4b!Ni{Lh6"  # both of the documentation of ZeroMQ
NAMES = ("web1.pub", "a.pub", "UPPER.pub", ".pub", "x" * 70 + ".pub", "note.txt", "a b.pub")


def check(data: bytes) -> None:
    """As a secret key, as a public one, as a directory of those, and as a token's file."""
    chooser = Chooser(data)
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        file = place / "some.key"
        content = chooser.some()
        file.write_bytes(content)
        file.chmod(chooser.pick((0o600, 0o644, 0o400)))
        for load in (curve.load_key, curve.load_public):
            try:
                load(file)
            except ConfigError as error:
                _check_silent(str(error), content)
        for directory in ("accepted", "refused", "tokens"):
            (place / directory).mkdir()
        for _ in range(chooser.below(3)):
            (place / chooser.pick(("accepted", "refused")) / chooser.pick(NAMES)).write_bytes(chooser.some())
        (place / "tokens" / "x.json").write_bytes(chooser.rest())
        keys = Keys(place / "accepted", place, lambda: 0.0)
        with contextlib.suppress(ConfigError):
            keys.load()
        for key in (PUBLIC, *keys.accepted, *keys.refused, *keys.tickets):
            keys.principal(key, "10.0.0.1")
        for row in keys.rows():
            assert len(row["fingerprint"]) == 32


def _check_silent(text: str, content: bytes) -> None:
    """What a file holds is not in what is said of it: it may be a secret."""
    secret = content.decode("latin-1").strip()
    assert len(secret) < 8 or secret not in text
