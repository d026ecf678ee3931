"""Reading pickles: what is admitted comes through whole, what would run is refused and named."""

import argparse
import io
import os
import pickle
import struct
import subprocess
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from mindvis.errors import InputError
from mindvis.safe_pickle import Bag, load_object_npy, load_torch, plain

OLD_GLOBAL = b"cposix\nsystem\n"


class Settings:
    """A class the reader does not know: its module exists while the test writes, not by name in the package."""

    def __init__(self):
        self.patch_size, self.nested = 16, {"subjects": ["sbj_3"], "lr": 5.3e-5}


class Call:
    """Pickles into a call of `function(*args)`."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def write_zip(path: Path, program: bytes, entries: dict | None = None, compression: int = zipfile.ZIP_STORED) -> Path:
    """A torch file around a hand-written pickle program."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in {"data.pkl": program, "byteorder": b"little", **(entries or {})}.items():
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


@pytest.mark.parametrize("new_format", [True, False])
def test_tensors_and_containers_come_through(tmp_path, new_format):
    """Every type of tensor, scalar and container is read equal, in the zip format and in the stream format."""
    base = torch.arange(12.0)
    content = {
        "view": base[3:].view(3, 3).t(),
        "types": [torch.ones(3).to(kind) for kind in (torch.bfloat16, torch.float16, torch.int8, torch.bool)],
        "scalar": torch.tensor(3),
        "empty": torch.empty(0, 5),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "ordered": OrderedDict(a=1, b=(2.5, None, True)),
        "numpy": [np.float64(0.1), np.arange(6).reshape(2, 3).T, np.arange(3, dtype=">i4"), np.array(["ab", "c"])],
        "set": {1, "two"},
        "bytes": b"\x00\xff",
        "path": Path("a/b"),
    }
    path = tmp_path / "x.pth"
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    found = load_torch(path)
    assert list(found) == list(content) and found["path"] == "a/b"
    for name in ("view", "scalar", "empty", "parameter"):
        assert torch.equal(found[name], content[name]) and found[name].dtype == content[name].dtype
    for ours, theirs in zip(found["types"], content["types"], strict=True):
        assert torch.equal(ours, theirs) and ours.dtype == theirs.dtype
    for ours, theirs in zip(found["numpy"], content["numpy"], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert [found[name] for name in ("ordered", "set", "bytes")] == [content[n] for n in ("ordered", "set", "bytes")]


@pytest.mark.parametrize("new_format", [True, False])
def test_shared_memory_stays_shared(tmp_path, new_format):
    """Two views of one tensor are views of one tensor again, and writing to them leaves the file alone."""
    base = torch.arange(6.0)
    torch.save({"base": base, "tail": base[3:]}, tmp_path / "x.pth", _use_new_zipfile_serialization=new_format)
    found = load_torch(tmp_path / "x.pth")
    found["base"][3] = 100.0
    assert found["tail"][0] == 100.0
    assert load_torch(tmp_path / "x.pth")["tail"][0] == 3.0


@pytest.mark.parametrize("protocol", range(6))
def test_unknown_object_becomes_bag(tmp_path, protocol):
    """An object of a class that cannot be imported is read as its attributes, from every pickle protocol."""
    module = types.ModuleType("vanished_config")
    known, Settings.__module__ = Settings.__module__, "vanished_config"
    sys.modules["vanished_config"], module.Settings = module, Settings
    try:
        torch.save({"config": Settings()}, tmp_path / "x.pth", pickle_protocol=max(protocol, 2))
        program = pickle.dumps({"config": Settings()}, protocol=protocol)
    finally:
        del sys.modules["vanished_config"]
        Settings.__module__ = known
    for path in (tmp_path / "x.pth", write_zip(tmp_path / "y.pth", program)):
        config = load_torch(path)["config"]
        assert isinstance(config, Bag) and config.class_name == "vanished_config.Settings"
        assert plain(config) == {"patch_size": 16, "nested": {"subjects": ["sbj_3"], "lr": 5.3e-5}}


def test_omegaconf_and_namespace_become_plain(tmp_path):
    """OmegaConf containers, with their links to parents, and Namespaces become plain dicts and lists."""
    config = OmegaConf.create({"a": {"b": [1, 2.5, "x", None]}})
    torch.save({"omega": config, "args": argparse.Namespace(lr=0.1)}, tmp_path / "x.pth")
    found = load_torch(tmp_path / "x.pth")
    assert plain(found["omega"]) == {"a": {"b": [1, 2.5, "x", None]}}
    assert plain(found["args"]) == {"lr": 0.1}


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
    return {
        "empty": b"",
        "text": b"hello\n",
        "web page": b"<!DOCTYPE html><html>404</html>",
        "half a zip": whole[: len(whole) // 2],
        "zip without a pickle": write_zip(folder / "other", b"").read_bytes().replace(b"data.pkl", b"data.txt"),
        "empty pickle": write_zip(folder / "nothing", b"").read_bytes(),
        "pickle cut short": write_zip(folder / "cut", pickle.dumps({"a": [1, 2]})[:-3]).read_bytes(),
        "compressed bomb": bomb,
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
    assert "No such file" in refusal(tmp_path / "absent.pth")
    assert "directory" in refusal(tmp_path)


def test_unfolding_settings_are_refused(tmp_path):
    """Lists of the same list, thirty deep, are a few bytes in a file and must not be unfolded."""
    nested: list = [1]
    for _ in range(30):
        nested = [nested, nested]
    torch.save(nested, tmp_path / "x.pth")
    with pytest.raises(pickle.UnpicklingError, match="entries"):
        plain(load_torch(tmp_path / "x.pth"))


@pytest.mark.parametrize("module", ["numpy._core", "numpy.core"])
def test_object_array_of_images(tmp_path, rng, module):
    """BOLD5000's img_dict.npy is read as numpy reads it, under numpy's old and new module names."""
    images = {f"{i}.jpg": rng.integers(0, 256, (4, 5, 3), dtype=np.uint8) for i in range(3)}
    np.save(tmp_path / "x.npy", images, allow_pickle=True)
    content = (tmp_path / "x.npy").read_bytes()
    if module == "numpy.core":
        content = content[: content.index(b"\n") + 1] + pickle.dumps(np.array(images), 2)
        content = content.replace(b"numpy._core", b"numpy.core")
    (tmp_path / "x.npy").write_bytes(content)
    found = load_object_npy(tmp_path / "x.npy")
    assert list(found) == list(images)
    for name, image in images.items():
        np.testing.assert_array_equal(found[name], image)


@pytest.mark.parametrize("content", [b"", b"not numpy", b"\x93NUMPY\x01\x00v\x00{'descr': '|O'"])
def test_broken_object_arrays_give_one_line(tmp_path, content):
    """A file that is no .npy file is an error that names it."""
    (tmp_path / "x.npy").write_bytes(content)
    refusal(tmp_path / "x.npy", load_object_npy)


def test_every_cut_of_a_file_is_an_input_error(tmp_path):
    """Wherever a download stopped, the message is one line: no other exception escapes."""
    for new_format in (True, False):
        buffer = io.BytesIO()
        torch.save({"w": torch.ones(3), "c": Settings()}, buffer, _use_new_zipfile_serialization=new_format)
        for size in range(0, len(buffer.getvalue()) - 1, 29):
            (tmp_path / "x.pth").write_bytes(buffer.getvalue()[:size])
            refusal(tmp_path / "x.pth")


@pytest.mark.slow
@pytest.mark.parametrize("new_format", [True, False])
def test_large_files_are_mapped(tmp_path, new_format):
    """Opening a file of 400 MB takes less than 60 MB of memory."""
    torch.save({"w": torch.ones(100_000_000)}, tmp_path / "x.pth", _use_new_zipfile_serialization=new_format)
    program = (
        "import resource, sys; from mindvis.safe_pickle import load_torch\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "before = peak(); w = load_torch(sys.argv[1])['w']; assert w[-1] == 1; print(peak() - before)"
    )
    root = Path(__file__).parents[1]
    grown = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "x.pth")], cwd=root, capture_output=True, text=True, check=True
    ).stdout
    assert int(grown) < 60
