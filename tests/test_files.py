"""The one writer of files: whole or not there, with the rights the umask allows; a line when there is no room."""

import errno
import hashlib
import os
import stat

import numpy as np
import pytest
import torch

from mindvis.checkpoints import save_safetensors
from mindvis.common.errors import InputError
from mindvis.common.files import TEMPORARY, sha256, sha256_of, to_csv, write_atomic, write_npz, write_text


@pytest.fixture
def umask():
    """A umask that lets the group write, as on shared machines."""
    before = os.umask(0o002)
    yield
    os.umask(before)


def rights(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_has_the_rights_that_the_umask_allows(tmp_path, umask):
    """Also where a library writes to the name and puts a file of its own there."""
    write_text(tmp_path / "a.txt", "text")
    save_safetensors(tmp_path / "a.safetensors", {"x": torch.zeros(3)}, {})
    assert rights(tmp_path / "a.txt") == rights(tmp_path / "a.safetensors") == 0o664


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_room_names_the_file_that_was_being_written(tmp_path, number):
    """What was there before is whole, and no temporary file is left."""
    (tmp_path / "a").write_text("before")

    def write(file):
        file.write(b"half")
        raise OSError(number, os.strerror(number))

    with pytest.raises(InputError, match=rf"{tmp_path / 'a'}: {os.strerror(number)}.*needed: "):
        write_atomic(tmp_path / "a", write)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "before"


def test_a_short_write_of_an_array_is_named(tmp_path):
    """numpy says so without giving a reason."""

    def write(file):
        raise OSError("3000 requested and 1024 written")

    with pytest.raises(InputError, match="a.npy: not all of it could be written"):
        write_atomic(tmp_path / "a.npy", write)


def test_an_error_of_another_file_is_passed_on(tmp_path):
    """A source that is gone is not the fault of the file being written."""
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "a", lambda file: (tmp_path / "source").read_bytes())
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_names_the_file(tmp_path):
    """A file stands where its folder should be."""
    (tmp_path / "a").write_text("")
    with pytest.raises(InputError, match="a/b.txt: cannot be written"):
        write_text(tmp_path / "a" / "b.txt", "text")


def test_arrays_are_read_back(tmp_path):
    """Into a folder that is made for them; nothing temporary is left."""
    write_npz(tmp_path / "new" / "a.npz", {"x": np.arange(3)})
    with np.load(tmp_path / "new" / "a.npz") as file:
        assert file["x"].tolist() == [0, 1, 2]
    assert not list(tmp_path.rglob("*" + TEMPORARY))


def test_digest_of_a_file_and_of_its_beginning(tmp_path):
    """As hashlib gives it for the bytes."""
    (tmp_path / "a").write_bytes(b"abcdef")
    assert sha256(tmp_path / "a") == hashlib.sha256(b"abcdef").hexdigest()
    with (tmp_path / "a").open("rb") as file:
        assert sha256_of(file, 4).hexdigest() == hashlib.sha256(b"abcd").hexdigest()
        assert file.read() == b"ef"


def test_csv_leaves_empty_what_a_row_lacks():
    """Columns in the order given; a value that no column names is left out."""
    assert to_csv(["a", "b"], [{"a": 1, "c": 2}, {"b": "x,y"}]) == 'a,b\n1,\n,"x,y"\n'
