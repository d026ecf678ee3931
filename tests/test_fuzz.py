"""What nobody has thought of: any text for any setting, and small files of every format with bytes changed or cut off.

The one thing that holds for all of them: they are taken, or refused by an `InputError` of one line.
"""

import json
import typing
from collections.abc import Iterator
from dataclasses import fields, is_dataclass

import h5py
import numpy as np
import pytest
import torch
import yaml
from god_files import save_picture
from hcp_files import save_dlabel, save_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nibabel import Nifti1Image
from scipy.io import savemat

from mindvis.checkpoints.torch_files import load_torch
from mindvis.common.errors import InputError
from mindvis.common.texts import read_json, read_lines, read_table
from mindvis.config import decoding, schemas, tools
from mindvis.config.conform import dataclass_of
from mindvis.config.loading import load_config, read_yaml
from mindvis.data.arrays import load_npy, load_object_npy, read_npz
from mindvis.data.images import read_picture
from mindvis.data.own import load_npz, save_npz
from mindvis.evaluation.audit_folders import read_images
from mindvis.evaluation.networks import read_tensors
from mindvis.prepare.bdata import is_bdata, read_bdata
from mindvis.prepare.nifti import open_image
from mindvis.prepare.parcellation import load_parcellation

MODULES = [vars(schemas), vars(tools), vars(decoding)]
SCHEMAS = {part for names in MODULES for part in names.values() if isinstance(part, type) and is_dataclass(part)}
ODD = [
    "",
    "~",
    "~nobody/x",
    "NaN",
    "-inf",
    "1e999",
    "0x10",
    "010",
    "1_0",
    "²",
    "true",
    "[]",
    "[",
    "{",
    "{a: 1}",
    "[[1]]",
]
ODD += [
    "null",
    "[null]",
    "${",
    "${x}",
    "${oc.env:NO_SUCH}",
    "${oc.env}",
    "???",
    "a: b",
    "'",
    '"',
    "\x00",
    "\ud7ff",
    "9" * 400,
]
TEXTS = st.one_of(st.sampled_from(ODD), st.text(max_size=12), st.integers().map(str), st.floats().map(str))
QUICK = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


def names_of(schema: type, prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings, those that hold others among them."""
    hints = typing.get_type_hints(schema)
    for item in fields(schema):
        yield prefix + item.name
        nested = dataclass_of(hints[item.name])
        if nested:
            yield from names_of(nested, f"{prefix}{item.name}.")


PAIRS = sorted(((s, n) for s in SCHEMAS for n in names_of(s)), key=lambda pair: (pair[0].__name__, pair[1]))


def one_line(error: InputError) -> bool:
    return 0 < len(" ".join(str(error).split())) < 2000


@settings(max_examples=400, **QUICK)
@given(pair=st.sampled_from(PAIRS), text=TEXTS)
def test_any_text_for_any_setting_of_the_command_line(pair, text):
    """Numbers, texts, lists, pairs and nested settings alike."""
    schema, name = pair
    try:
        load_config(schema, None, [f"{name}={text}"])
    except InputError as error:
        assert one_line(error)


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=4,
)


@settings(max_examples=150, **QUICK)
@given(pair=st.sampled_from(PAIRS), value=VALUES)
def test_any_value_for_any_setting_of_a_file(tmp_path, pair, value):
    """Nested as the name is."""
    schema, name = pair
    for part in reversed(name.split(".")):
        value = {part: value}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(value, allow_unicode=True), encoding="utf-8", errors="ignore")
    try:
        load_config(schema, tmp_path / "a.yaml")
    except InputError as error:
        assert one_line(error)


def make_own(path, rng):
    images = rng.integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    split = np.array(["train"] * 3 + ["test"])
    save_npz(path, fmri=rng.standard_normal((4, 6)).astype(np.float32), images=images, split=split)


def make_bdata(path, rng):
    with h5py.File(path, "w") as file:
        file["dataset"] = rng.standard_normal((3, 4))
        file["metadata/key"] = [b"VoxelData", b"ROI_VC"]
        file["metadata/description"] = [b"", b""]
        file["metadata/value"] = np.ones((2, 4))


FORMATS = {
    "own.npz": (make_own, load_npz),
    "images.npz": (lambda path, rng: np.savez(path, images=np.zeros((2, 4, 4, 3), np.uint8)), read_images),
    "packed.npz": (lambda path, rng: np.savez_compressed(path, a=rng.standard_normal(9)), read_npz),
    "a.npy": (lambda path, rng: np.save(path, rng.standard_normal((3, 4))), load_npy),
    "object.npy": (lambda path, rng: np.save(path, {"a": np.arange(3)}, allow_pickle=True), load_object_npy),
    "a.png": (save_picture, read_picture),
    "a.jpg": (save_picture, read_picture),
    "a.json": (lambda path, rng: path.write_text(json.dumps({"0": ["n01440764", "tench"]})), read_json),
    "a.csv": (lambda path, rng: path.write_text('a,"b"\n1,2\n'), read_table),
    "a.txt": (lambda path, rng: path.write_text("eins\nzwei\n"), read_lines),
    "a.yaml": (lambda path, rng: path.write_text("a: {b: [1, 2], c: '3'}\n"), read_yaml),
    "a.h5": (make_bdata, read_bdata),
    "b.h5": (make_bdata, is_bdata),
    "a.mat": (lambda path, rng: savemat(path, {"a": np.arange(4)}), read_bdata),
    "a.pth": (lambda path, rng: torch.save({"model": {"w": torch.ones(3)}}, path), load_torch),
    "b.pth": (lambda path, rng: torch.save({"w": torch.ones(3)}, path), read_tensors),
    "a.nii": (lambda path, rng: Nifti1Image(np.zeros((2, 2, 2, 3)), np.eye(4)).to_filename(path), open_image),
    "a.dtseries.nii": (lambda path, rng: save_run(path, rng.standard_normal((4, 54))), open_image),
    "a.dlabel.nii": (lambda path, rng: save_dlabel(path), load_parcellation),
}


@st.composite
def damages(draw):
    """How a file is damaged: cut at a share of its length, and some bytes at other shares changed."""
    cut = draw(st.one_of(st.just(1.0), st.floats(0, 1)))
    changed = draw(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4))
    return cut, changed


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Bytes of a sound file of every format, read from its folder by a function."""
    folder, rng = tmp_path_factory.mktemp("whole"), np.random.default_rng(0)
    for name, (make, _) in FORMATS.items():
        make(folder / name, rng)
    return lambda name: (folder / name).read_bytes()


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=25, **QUICK)
@given(damage=damages())
def test_a_damaged_file_is_read_or_refused(tmp_path, whole, name, damage):
    """Cut short, or with bytes that are others."""
    cut, changed = damage
    sound = whole(name)
    content = bytearray(sound[: int(cut * len(sound))])
    for share, value in changed if content else []:
        content[int(share * len(content))] = value
    path = tmp_path / name
    path.write_bytes(content)
    try:
        FORMATS[name][1](path)
    except InputError as error:
        assert path.name in str(error) and one_line(error)
