"""Pickles that would run something, claim memory that is not theirs, or are no pickles: refused in one line."""

import argparse
import io
import os
import pickle
import re
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from mindvis.checkpoints.torch_files import STREAM_START, load_torch
from mindvis.common.errors import InputError
from mindvis.data.arrays import load_object_npy

OLD_GLOBAL = b"cposix\nsystem\n"


class Call:
    """Pickles into a call of `function(*args)`."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def write_zip(path: Path, program: bytes, entries: dict | None = None, compression: int = zipfile.ZIP_STORED) -> Path:
    """A torch file around a hand-written pickle program."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in {"data.pkl": program, "version": b"3", "byteorder": b"little", **(entries or {})}.items():
            archive.writestr(f"archive/{name}", content)
    return path


def refusal(path: Path, load=load_torch) -> str:
    with pytest.raises(InputError) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


def tensor_program(storage=(b"FloatStorage", 4), offset=0, size=(4,), stride=(1,)) -> bytes:
    """A pickle of one tensor with the given claims about its storage and shape."""
    count, *view = (pickle.dumps(value, protocol=2)[2:-1] for value in (storage[1], offset, size, stride))
    key = b"(X\x07\x00\x00\x00storagectorch\n" + storage[0] + b"\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + count
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + key + b"tQ" + b"".join(view) + b"\x89NtR."


@pytest.mark.parametrize(
    "call, name",
    [
        (Call(os.system, "touch {mark}"), "system"),
        (Call(eval, "open('{mark}', 'w')"), "builtins.eval"),
        (Call(exec, "open('{mark}', 'w')"), "builtins.exec"),
        (Call(getattr, os, "system"), "builtins.getattr"),
        (Call(open, "{mark}", "w"), "open"),
        (Call(__import__, "antigravity"), "builtins.__import__"),
        (Call(torch.load, "{mark}"), "torch.serialization.load"),
        (Call(np.load, "{mark}"), "numpy.load"),
        (Call(argparse.Namespace), "argparse.Namespace"),
        ([{"deep": (1, Call(os.system, "touch {mark}"))}], "system"),
    ],
)
@pytest.mark.parametrize("form", ["zip", "stream", "npy"])
def test_calls_are_refused_by_name(tmp_path, monkeypatch, call, name, form):
    """A pickle that would call a function does not, whatever the file around it, and the message names the function."""
    mark = tmp_path / "ran"
    inner = call[0]["deep"][1] if isinstance(call, list) else call
    monkeypatch.setattr(inner, "args", tuple(a.format(mark=mark) if isinstance(a, str) else 0 for a in inner.args))
    path = tmp_path / "evil"
    if form == "npy":
        np.save(tmp_path / "evil.npy", np.array([call], dtype=object), allow_pickle=True)
        message = refusal(tmp_path / "evil.npy", load_object_npy)
    else:
        torch.save(call, path, _use_new_zipfile_serialization=form == "zip")
        message = refusal(path)
    assert "refused" in message and name in message and not mark.exists()


PROGRAMS = {
    "REDUCE": (OLD_GLOBAL + b"(S'touch MARK'\ntR.", "posix.system"),
    "INST": (b"(S'touch MARK'\niposix\nsystem\n.", "posix.system"),
    "OBJ": (b"(cunknown\nthing\nS'touch MARK'\no.", "unknown.thing"),
    "STACK_GLOBAL": (b"\x80\x04\x8c\x05posix\x8c\x06system\x93Vtouch MARK\n\x85R.", "posix.system"),
    "dotted name": (b"\x80\x04\x8c\x08builtins\x8c\x0cdict.__doc__\x93.", "dict.__doc__"),
    "NEWOBJ of a type": (b"\x80\x02cbuiltins\nint\nK\x01\x85\x81.", "builtins.int"),
    "NEWOBJ of a function": (OLD_GLOBAL + b"S'x'\n\x85\x81.", "posix.system"),
    "call of an unknown class": (b"cmodels\nEvil\n(tR.", "models.Evil"),
    "call of a bag": (b"\x80\x02cmodels\nEvil\n)\x81)R.", "Bag"),
    "copyreg on a type": (b"ccopyreg\n_reconstructor\n(cm\nA\ncbuiltins\nlist\n]tR.", "builtins.list"),
    "import under an old name": (b"c__builtin__\neval\n(S'1'\ntR.", "eval"),
    "apply": (b"c__builtin__\napply\n(" + OLD_GLOBAL + b"(S'x'\nttR.", "apply"),
    "EXT1": (b"\x80\x02\x82\x01.", "registry"),
    "PERSID": (b"Psomething\n.", "something"),
    "BINPERSID": (b"K\x05Q.", "persistent id"),
    "BUILD on a dict": (b"}}b.", "dict"),
    "BUILD on a tensor": (tensor_program()[:-1] + b"}S'__class__'\nK\x01sb.", "Tensor"),
    "items of a list": (b"]K\x00K\x01s.", "list"),
    "append to a dict": (b"}K\x00a.", "dict"),
    "deep key": (b"}((K\x01ttK\x01s.", "key"),
    "line break in a name": (b"\x80\x04\x8c\x03m\nn\x8c\x01x\x93)R.", "m\\nn.x"),
    "codec": (b"c_codecs\nencode\n(Vx\nVbz2\ntR.", "bz2"),
    "structured dtype": (b"cnumpy\ndtype\n(VV8\ntR.", "V8"),
    "object bytes": (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR"
        b"(I1\n(I1\ntcnumpy\ndtype\n(VO8\nI00\nI01\ntRI00\nVAAAAAAAA\ntb.",
        "another size",
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_are_refused(tmp_path, name):
    """Hand-written pickle programs, one instruction or trick each, are refused without effect."""
    program, named = PROGRAMS[name]
    mark = tmp_path / "ran"
    path = write_zip(tmp_path / "x.pth", program.replace(b"MARK", bytes(mark)), {"data/0": bytes(16)})
    message = refusal(path)
    assert "refused" in message and named in message and not mark.exists()


CLAIMS = {
    "storage beyond its entry": {"storage": (b"FloatStorage", 5)},
    "storage of a false type": {"storage": (b"DoubleStorage", 4)},
    "unknown storage type": {"storage": (b"EvilStorage", 4)},
    "negative size": {"size": (-4,)},
    "shape beyond the storage": {"size": (5,)},
    "stride beyond the storage": {"stride": (2,)},
    "negative stride": {"stride": (-1,)},
    "offset beyond the storage": {"offset": 1},
    "negative offset": {"offset": -1},
    "repeated elements": {"size": (2**40,), "stride": (0,)},
    "strides of another number": {"stride": (1, 1)},
    "count that overflows": {"storage": (b"FloatStorage", 2**62)},
}


@pytest.mark.parametrize("name", CLAIMS)
def test_false_claims_about_memory_are_refused(tmp_path, name):
    """A tensor that claims more than the file holds is an error, never memory that is not its own."""
    good = write_zip(tmp_path / "good.pth", tensor_program(), {"data/0": np.arange(4, dtype="f4").tobytes()})
    assert load_torch(good).tolist() == [0, 1, 2, 3]
    refusal(write_zip(tmp_path / "x.pth", tensor_program(**CLAIMS[name]), {"data/0": bytes(16)}))


def broken_files(folder: Path) -> dict[str, bytes]:
    buffer, stream = io.BytesIO(), io.BytesIO()
    torch.save({"w": torch.arange(1000.0)}, buffer)
    torch.save({"w": torch.arange(1000.0)}, stream, _use_new_zipfile_serialization=False)
    whole, old = buffer.getvalue(), stream.getvalue()
    bomb = write_zip(folder / "bomb", pickle.dumps(bytes(10**7)), compression=zipfile.ZIP_DEFLATED).read_bytes()
    twice = write_zip(folder / "twice", tensor_program(), {"data/0": bytes(16), "DATA/0": bytes(4)})
    return {
        "empty": b"",
        "text": b"hello\n",
        "web page": b"<!DOCTYPE html><html>404</html>",
        "half a zip": whole[: len(whole) // 2],
        "zip without a pickle": write_zip(folder / "other", b"").read_bytes().replace(b"data.pkl", b"data.txt"),
        "empty pickle": write_zip(folder / "nothing", b"").read_bytes(),
        "pickle cut short": write_zip(folder / "cut", pickle.dumps({"a": [1, 2]})[:-3]).read_bytes(),
        "compressed bomb": bomb,
        "two entries of one name": twice.read_bytes(),
        "stream without a storage": re.sub(rb"\x80\x02\]q\x00X.{4}\d+q\x01a\.", b"\x80\x02]q\x00.", old),
        "storage missing": write_zip(folder / "missing", tensor_program()).read_bytes(),
        "big-endian": write_zip(folder / "big", pickle.dumps(1), {"byteorder": b"big"}).read_bytes(),
        "stream cut in the pickle": old[:150],
        "stream cut in the storages": old[:-8],
        "stream of another protocol": old.replace(pickle.dumps(1001, 2)[2:], pickle.dumps(1002, 2)[2:], 1),
        "stream with a false count": old.replace(struct.pack("<q", 1000), struct.pack("<q", 2**60)),
        "false size in a pickle": write_zip(folder / "claim", b"\x80\x04\x8e" + b"\xff" * 7 + b"\x00x.").read_bytes(),
        "huge memo": write_zip(folder / "memo", b"\x80\x02Nr\xff\xff\xff\x7f" + b"0.").read_bytes(),
    }


def test_broken_files_give_one_line(tmp_path):
    """Files that are no torch file, or not a whole one, give one line each that names them."""
    for name, content in broken_files(tmp_path).items():
        path = tmp_path / f"{name}.pth"
        path.write_bytes(content)
        assert len(refusal(path)) < 400, name
    assert "storages are missing" in refusal(tmp_path / "stream without a storage.pth")
    assert "same name" in refusal(tmp_path / "two entries of one name.pth")
    assert "No such file" in refusal(tmp_path / "absent.pth")
    assert "directory" in refusal(tmp_path)


def test_an_archive_that_begins_like_a_stream_is_refused(tmp_path):
    """torch would unpack a tar archive to disk; one whose first name is the start of a stream is refused before."""
    header = bytearray(tarfile.TarInfo("x" * 40).tobuf(tarfile.USTAR_FORMAT))
    header[: len(STREAM_START)] = STREAM_START
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "x.pth").write_bytes(bytes(header) + bytes(1024))
    assert tarfile.is_tarfile(tmp_path / "x.pth")
    assert "not a torch file" in refusal(tmp_path / "x.pth")


def whole_files() -> dict:
    """A small file of each form, and what reads it."""
    content = {"w": torch.arange(50.0), "t": torch.ones(3, 4).t(), "c": argparse.Namespace(lr=0.1), "n": np.arange(4)}
    forms = {name: io.BytesIO() for name in ("zip", "stream", "npy")}
    torch.save(content, forms["zip"])
    torch.save(content, forms["stream"], _use_new_zipfile_serialization=False)
    np.save(forms["npy"], np.array({"a.jpg": np.ones((2, 2), np.uint8)}, dtype=object), allow_pickle=True)
    return {name: (form.getvalue(), load_object_npy if name == "npy" else load_torch) for name, form in forms.items()}


@pytest.mark.parametrize("form", ["zip", "stream", "npy"])
def test_changed_bytes_are_read_or_refused_in_one_line(tmp_path, rng, form):
    """Bytes changed, cut out or put in at random: a value or an InputError, never another exception."""
    whole, load = whole_files()[form]
    path, refused = tmp_path / "x", 0
    for _ in range(200):
        content = bytearray(whole)
        for place in rng.integers(0, len(whole), rng.choice([1, 2, 8])):
            replaced = rng.bytes(rng.integers(0, 4))
            content[place : place + rng.integers(0, 4)] = replaced
        path.write_bytes(content)
        try:
            load(path)
        except InputError as error:
            assert "\n" not in str(error) and str(path) in str(error)
            refused += 1
    assert refused > 50
