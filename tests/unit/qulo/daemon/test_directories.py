"""Directories are made once, with the right mode, and what exists belongs to whom it belonged to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qulo import config
from qulo.daemon import directories
from qulo.errors import FileError


def test_parents_are_made_and_only_the_last_one_changes_hands(place: Path) -> None:
    owner = (65534, 65534) if os.getuid() == 0 else (os.getuid(), os.getgid())
    directories.make(f"{place}/a/b", os.getuid(), owner, private=True)
    assert (place / "a/b").stat().st_mode & 0o777 == 0o700
    assert (place / "a/b").stat().st_uid == owner[0]
    assert (place / "a").stat().st_uid == os.getuid()


def test_what_exists_is_not_changed(place: Path) -> None:
    (place / "a").mkdir()
    (place / "a").chmod(0o751)
    directories.make(f"{place}/a", os.getuid(), (65534, 65534), private=True)
    assert (place / "a").stat().st_mode & 0o777 == 0o751
    assert (place / "a").stat().st_uid == os.getuid()


def test_what_is_in_the_way_or_not_possible_is_said(place: Path) -> None:
    (place / "file").touch()
    with pytest.raises(FileError, match="file is not a directory"):
        directories.make(f"{place}/file", 0, None)
    with pytest.raises(FileError, match="/proc/none cannot be made: "):
        directories.make("/proc/none/x", 0, None)


def test_a_link_that_takes_a_new_directorys_place_leads_nowhere(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "precious").mkdir(mode=0o750)

    def mkdir(path: Path, mode: int) -> None:
        path.symlink_to(place / "precious")

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(FileError, match="link cannot be made"):
        directories.make(f"{place}/link", 0, (os.getuid(), os.getgid()), private=True)
    assert (place / "precious").stat().st_mode & 0o777 == 0o750


def test_a_directory_in_tmp_that_somebody_else_made_first_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "last_resort", lambda _uid: f"{place}/qulo-4711")
    (place / "qulo-4711").mkdir(mode=0o755)
    with pytest.raises(FileError, match="is not a directory of user 4711 alone"):
        directories.make(f"{place}/qulo-4711", 4711, None)


def test_the_directories_of_settings_are_those_of_its_files(place: Path) -> None:
    settings = config.load("qulod", "/dev/null", environ={}, uid=0)
    assert directories.wanted(settings, log_to_file=True) == ["/var/lib/qulo", "/run/qulo", "/var/log/qulo"]
    assert directories.wanted(settings, log_to_file=False) == ["/var/lib/qulo", "/run/qulo"]
    settings = config.load("qulod", "/dev/null", environ={}, uid=0, overrides={"log_file": str(place)})
    assert directories.wanted(settings, log_to_file=True)[-1] == str(place)
