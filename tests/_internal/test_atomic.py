"""Atomic writes: a reader sees the old content or the new one, never a part of it."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tfkd._internal import atomic


class Interrupted(Exception):
    pass


def write_half(path):
    with atomic.replacing(path) as part:
        part.write_text("half")
        raise Interrupted


def entries(folder):
    """Names in a folder, temporary files included."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def umask():
    """Sets the umask of a test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize(("content", "written"), [("é\n", "é\n".encode()), (b"\0\1", b"\0\1")])
def test_write_makes_folders_and_replaces_content(tmp_path, content, written):
    path = tmp_path / "a/b/file.bin"
    for _ in range(2):
        atomic.write(path, content)
        assert path.read_bytes() == written
    assert entries(path.parent) == ["file.bin"]


def test_replacing_with_an_exception_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.npz"
    path.write_text("old")
    with pytest.raises(Interrupted):
        write_half(path)
    assert path.read_text() == "old"
    assert entries(tmp_path) == ["file.npz"]


def test_replacing_with_an_exception_leaves_no_new_file(tmp_path):
    with pytest.raises(Interrupted):
        write_half(tmp_path / "file")
    assert entries(tmp_path) == []


def test_replacing_keeps_the_suffix_by_which_writers_choose_a_format(tmp_path):
    with atomic.replacing(tmp_path / "model.keras") as part:
        assert part.suffix == ".keras"
        assert part.parent == tmp_path


def killed_while(script, tmp_path):
    """Runs a script up to its line "ready", then kills it."""
    code = f"import sys, time\nfrom pathlib import Path\nfrom tfkd._internal import atomic\n{script}"
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(root)}
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def test_replacing_killed_leaves_the_old_file(tmp_path):
    (tmp_path / "file").write_text("old")
    killed_while(
        "with atomic.replacing(Path(sys.argv[1], 'file')) as part:\n"
        "    part.write_text('half')\n    print('ready', flush=True)\n    time.sleep(60)",
        tmp_path,
    )
    assert (tmp_path / "file").read_text() == "old"


def test_write_killed_at_any_time_leaves_a_complete_file(tmp_path):
    old, new = "a" * 1_000_000, "b" * 1_000_000
    (tmp_path / "file").write_text(old)
    killed_while(
        "print('ready', flush=True)\n"
        "while True:\n    for letter in 'ab':\n        atomic.write(Path(sys.argv[1], 'file'), letter * 1_000_000)",
        tmp_path,
    )
    assert (tmp_path / "file").read_text() in (old, new)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_follow_the_umask(tmp_path, umask, mask):
    umask(mask)
    atomic.write(tmp_path / "file", "x")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~mask
    atomic.write_folder(tmp_path / "folder", {"a": "x"})
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o777 & ~mask


def test_write_folder_replaces_the_whole_folder(tmp_path):
    folder = tmp_path / "case"
    atomic.write_folder(folder, {"a.txt": "1", "b/c.txt": "2"})
    assert (folder / "b/c.txt").read_text() == "2"
    atomic.write_folder(folder, {"d.txt": "3"})
    assert entries(folder) == ["d.txt"]
    assert entries(tmp_path) == ["case"]


def test_write_folder_with_an_error_leaves_the_old_folder(tmp_path):
    folder = tmp_path / "case"
    atomic.write_folder(folder, {"a.txt": "1"})
    with pytest.raises(UnicodeEncodeError):
        atomic.write_folder(folder, {"b.txt": "2", "c.txt": "\ud800"})
    assert entries(folder) == ["a.txt"]
    assert entries(tmp_path) == ["case"]
