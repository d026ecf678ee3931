"""Reading pickles: what is admitted comes through whole, what would run is refused and named."""

import argparse
import io
import pickle
import subprocess
import sys
import types
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from test_safe_pickle_refusals import refusal, write_zip

from mindvis.checkpoints.torch_files import load_torch
from mindvis.common.safe_pickle import Bag, as_settings
from mindvis.data.arrays import load_object_npy


class Settings:
    """A class the reader does not know: its module exists while the test writes, not by name in the package."""

    def __init__(self):
        self.patch_size, self.nested = 16, {"subjects": ["sbj_3"], "lr": 5.3e-5}


@pytest.mark.parametrize("new_format", [True, False])
def test_tensors_and_containers_come_through(tmp_path, new_format):
    """Every type of tensor, scalar and container is read equal, in the zip format and in the stream format."""
    base = torch.arange(12.0)
    kinds = [torch.bfloat16, torch.float16, torch.int8, torch.bool] + [torch.uint16] * new_format
    content = {
        "view": base[3:].view(3, 3).t(),
        "types": [torch.ones(3).to(kind) for kind in kinds],
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
        assert as_settings(config) == {"patch_size": 16, "nested": {"subjects": ["sbj_3"], "lr": 5.3e-5}}


def test_omegaconf_and_namespace_become_plain(tmp_path):
    """OmegaConf containers, with their links to parents, and Namespaces become plain dicts and lists."""
    config = OmegaConf.create({"a": {"b": [1, 2.5, "x", None]}})
    torch.save({"omega": config, "args": argparse.Namespace(lr=0.1)}, tmp_path / "x.pth")
    found = load_torch(tmp_path / "x.pth")
    assert as_settings(found["omega"]) == {"a": {"b": [1, 2.5, "x", None]}}
    assert as_settings(found["args"]) == {"lr": 0.1}


def test_unfolding_settings_are_refused(tmp_path):
    """Lists of the same list, thirty deep, are a few bytes in a file and must not be unfolded."""
    nested: list = [1]
    for _ in range(30):
        nested = [nested, nested]
    torch.save(nested, tmp_path / "x.pth")
    with pytest.raises(pickle.UnpicklingError, match="entries"):
        as_settings(load_torch(tmp_path / "x.pth"))


def test_settings_that_hold_themselves_end(tmp_path):
    """A configuration node whose content is the node itself is cut off, not followed for ever."""
    program = b"\x80\x02comegaconf.dictconfig\nDictConfig\n)\x81q\x00}X\x08\x00\x00\x00_contenth\x00sb."
    assert as_settings(load_torch(write_zip(tmp_path / "x.pth", program))) is None


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
def test_large_files_are_mapped(tmp_path):
    """Opening a file of 400 MB takes less than 60 MB of memory."""
    torch.save({"w": torch.ones(100_000_000)}, tmp_path / "x.pth")
    program = (
        "import resource, sys; from mindvis.checkpoints.torch_files import load_torch\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "before = peak(); w = load_torch(sys.argv[1])['w']; assert w[-1] == 1; print(peak() - before)"
    )
    root = Path(__file__).parents[1]
    grown = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "x.pth")], cwd=root, capture_output=True, text=True, check=True
    ).stdout
    assert int(grown) < 60
