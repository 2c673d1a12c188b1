"""A file is the old one or the new one, never half, and private where it must be."""

import stat
import subprocess
import sys

import pytest

from fedpeft.files import private_folder, write_private, write_whole

WRITERS = pytest.mark.parametrize(("write", "mode"), [(write_whole, 0o644), (write_private, 0o600)])

_FULL_DISK = """
import resource, sys
from pathlib import Path
from fedpeft import files
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    getattr(files, sys.argv[1])(Path(sys.argv[2]), b"new" * 1000)
except OSError as error:
    print("refused:", error.strerror)
"""


@WRITERS
def test_a_file_is_replaced_with_its_content_and_rights(tmp_path, write, mode):
    path = tmp_path / "file"
    for content in (b"old", b"", b"new\x00" * 5000):
        write(path, content)
        assert path.read_bytes() == content
        assert stat.S_IMODE(path.stat().st_mode) == mode
    assert list(tmp_path.iterdir()) == [path]


def test_text_is_written_as_utf8(tmp_path):
    write_whole(tmp_path / "file", "où?\n")
    assert (tmp_path / "file").read_bytes() == "où?\n".encode()


@WRITERS
@pytest.mark.parametrize("before", [b"the old content", None])
def test_a_full_disk_leaves_the_old_file_and_no_draft(tmp_path, write, mode, before):
    path = tmp_path / "file"
    if before is not None:
        write(path, before)
    done = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, write.__name__, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "refused: File too large\n"
    assert list(tmp_path.iterdir()) == ([] if before is None else [path])
    assert before is None or path.read_bytes() == before


def test_a_failing_replacement_leaves_no_draft(tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "inside").write_text("x")
    with pytest.raises(OSError, match="taken"):
        write_whole(tmp_path / "taken", "content")
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


def test_a_private_folder_lets_nobody_else_in(tmp_path):
    folder = private_folder(tmp_path / "parents" / "own")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert private_folder(folder) == folder
