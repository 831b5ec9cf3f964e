"""Giving up root for good: groups, then group, then user, then the proof that there is no way back."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom to become."""

    uid: int
    gid: int
    groups: tuple[int, ...]


def identity(user: str | None, group: str | None) -> Identity | None:
    """Whom `user` and `group` mean; None: stay what we are. The names exist, `config` has seen to that.

    Raises PermissionError when that is somebody else and we are not root.
    """
    if user is None and group is None:
        return None
    account = pwd.getpwuid(os.geteuid()) if user is None else pwd.getpwnam(user)
    gid = account.pw_gid if group is None else grp.getgrnam(group).gr_gid
    wanted = Identity(account.pw_uid, gid, tuple(os.getgrouplist(account.pw_name, gid)))
    if os.geteuid() == 0:
        return wanted
    if (wanted.uid, wanted.gid) != (os.geteuid(), os.getegid()):
        raise PermissionError(f"only root can become user {account.pw_name}, group {gid}: start it as root")
    return None


def drop(wanted: Identity) -> None:
    """Become `wanted`; the order matters, each step needs what the next one gives up.

    Raises PermissionError when root could be regained, which nothing may go on after.
    """
    os.setgroups(wanted.groups)
    os.setgid(wanted.gid)
    os.setuid(wanted.uid)  # as root this sets the real, effective and saved one
    if os.getresuid() != (wanted.uid,) * 3 or os.getresgid() != (wanted.gid,) * 3:
        raise PermissionError("privileges were not dropped completely")
    if wanted.uid == 0:
        return
    try:
        os.setuid(0)
    except PermissionError:
        return  # this failure is the proof
    raise PermissionError("root could be regained after privileges were dropped")
