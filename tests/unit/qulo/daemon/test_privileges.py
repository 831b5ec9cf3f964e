"""Giving up root. Each attempt is in a process of its own, because there is no way back."""

from __future__ import annotations

import os
import pwd

import pytest

from qulo.daemon import privileges
from tests.unit.qulo.daemon.conftest import python

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")

DROP = "import os\nfrom qulo.daemon.privileges import *\nfrom qulo.daemon import privileges\n"


def test_nobody_to_become_means_staying() -> None:
    assert privileges.identity(None, None) is None


@as_root
def test_dropping_changes_every_id_and_leaves_no_way_back() -> None:
    code = """
drop(identity("nobody", None))
print(os.getresuid(), os.getresgid(), os.getgroups())
for back in (os.setuid, os.seteuid, os.setgid):
    try:
        back(0)
    except PermissionError:
        print("refused")
"""
    nobody = pwd.getpwnam("nobody")
    expected = f"{(nobody.pw_uid,) * 3} {(nobody.pw_gid,) * 3} {[nobody.pw_gid]}\n" + "refused\n" * 3
    done = python(DROP + code)
    assert (done.stdout, done.stderr) == (expected, "")


@as_root
def test_a_group_alone_can_be_asked_for() -> None:
    done = python(DROP + "drop(identity(None, 'daemon'))\nprint(os.getuid(), os.getgid() != 0)")
    assert (done.stdout, done.stderr) == ("0 True\n", "")


@as_root
def test_a_way_back_is_noticed() -> None:
    # The effective user alone is changed, as a system call that does half of its work would.
    code = "os.setuid = os.seteuid\ndrop(identity('nobody', None))"
    assert "privileges were not dropped completely" in python(DROP + code).stderr
    code = "os.getresuid = lambda: (65534,) * 3\nos.setuid = os.seteuid\ndrop(Identity(65534, 65534, ()))"
    assert "root could be regained" in python(DROP + code).stderr


@as_root
def test_only_root_can_become_somebody_else() -> None:
    code = "drop(identity('nobody', None))\nprint(identity('nobody', None))\nidentity('root', None)"
    done = python(DROP + code)
    assert done.stdout == "None\n"  # being it already is fine
    assert "PermissionError: only root can become user root" in done.stderr
