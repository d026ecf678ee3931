"""Checkpoints of Stage B hold what is tuned; the rest is kept once beside them."""

import json
import shutil
from pathlib import Path

import pytest
import tiny_stages
import torch
from ldm_cases import full_size_config
from script_runner import run
from test_chain import GENERATE, arguments, without_zeros
from toy import same

from mindvis.checkpoints import read_weights
from mindvis.common.errors import InputError
from mindvis.common.tensor_files import load_tensors, save_tensors
from mindvis.dc_ldm import LDMModule, build_ldm
from mindvis.dc_ldm.precision import cast_frozen
from mindvis.sc_mbm import FMRIEncoder
from mindvis.training.base_weights import BASE, NAMES, BaseWriter, with_base


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Data, a label-to-image model and a short run of Stage B."""
    folder = tmp_path_factory.mktemp("base")
    tiny_stages.simulate_experiment(folder)
    without_zeros(folder / "model.ckpt")
    outcome = run("finetune_ldm", *arguments("finetune_ldm", folder, "trainer.max_epochs=2"))
    assert outcome.status == 0, outcome.err
    return folder


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    """The run folder alone, elsewhere."""
    return shutil.copytree(folder / "finetune_ldm", tmp_path / "copy")


def test_checkpoints_hold_what_is_tuned(folder):
    """The autoencoder and most of the UNet are in one file beside them, whose name is in each."""
    checkpoints = folder / "finetune_ldm" / "checkpoints"
    (base,) = checkpoints.glob("base-*.ckpt")
    last = load_tensors(checkpoints / "last.ckpt")
    rest = load_tensors(base)["state_dict"]
    assert last[BASE]["file"] == base.name and last[BASE]["sha256"].startswith(base.stem.removeprefix("base-"))
    assert not set(last["state_dict"]) & set(rest) and any("autoencoder" in name for name in rest)
    assert all("attn2" in n or "norm2" in n or "conditioner" in n or "condtion" in n for n in last["state_dict"])


def test_the_run_folder_is_enough(folder, copy):
    """Its pictures are the same when the files it was made from are out of reach; export merges."""
    hidden = (folder / "model.ckpt").rename(folder / "hidden.ckpt")
    try:
        outcome = run("generate", f"run={copy}", *GENERATE)
    finally:
        hidden.rename(folder / "model.ckpt")
    assert outcome.status == 0, outcome.err
    facts = json.loads((copy / "decoded" / "generate.json").read_text())["machine"]
    assert facts == {
        "device": "cpu", "driver": None, "precision": "32-true", "matmul_precision": "highest", "compile": False
    }  # fmt: skip
    exported = copy.parent / "exported"
    assert run("export_model", str(copy), str(exported)).status == 0
    assert same(read_weights(exported).state_dict, read_weights(copy).state_dict)


def test_a_whole_checkpoint_of_an_earlier_version_still_loads_and_goes_on(folder, copy):
    """It has no `base`; the next checkpoint has."""
    path = copy / "checkpoints" / "last.ckpt"
    whole = with_base(load_tensors(path), path, load_tensors)
    del whole[BASE]
    for base in path.parent.glob("base-*.ckpt"):
        base.unlink()
    save_tensors(whole, path)
    state = read_weights(copy, "last").state_dict
    assert same(state, {name.removeprefix("ldm."): tensor for name, tensor in whole["state_dict"].items()})
    settings = ["trainer.max_epochs=3", "resume_override=true", f"run_dir={copy}"]
    outcome = run("finetune_ldm", *arguments("finetune_ldm", folder, *settings))
    assert outcome.status == 0, outcome.err
    assert BASE in load_tensors(path) and len(list(path.parent.glob("base-*.ckpt"))) == 1


def test_a_missing_or_exchanged_base_is_one_line(copy):
    """Weights of another base would give other pictures."""
    (base,) = (copy / "checkpoints").glob("base-*.ckpt")
    content = load_tensors(base)
    save_tensors(content | {"sha256": "0"}, base)
    with pytest.raises(InputError, match=f"{base.name}, which holds the rest of its weights, is of other weights"):
        read_weights(copy, "last")
    base.unlink()
    with pytest.raises(InputError, match=f"{base.name}, which holds the rest of its weights, is no such file"):
        read_weights(copy, "last")


def test_the_base_is_written_once(tmp_path):
    """By the first checkpoint of a process, and not at all where the folder holds it."""
    state = {"tuned": torch.ones(2), "rest": torch.zeros(3, dtype=torch.bfloat16)}
    content = {"state_dict": state, NAMES: ["rest"]}
    for writer in (BaseWriter(), BaseWriter()):
        for _ in range(2):
            kept = writer.split(content, tmp_path)
        (base,) = tmp_path.iterdir()
        written = base.stat().st_mtime_ns
    assert kept["state_dict"].keys() == {"tuned"} and NAMES not in kept
    assert base.stat().st_mtime_ns == written
    assert same(with_base(kept, tmp_path / "last.ckpt", load_tensors)["state_dict"], state)


def test_a_checkpoint_at_published_size_is_below_two_gigabytes_and_a_fifth():
    """In bf16-mixed: what is tuned and its two moments in float32; counted, not written."""
    with torch.device("meta"):
        module = LDMModule(build_ldm(full_size_config(), FMRIEncoder()))
    cast_frozen(module.ldm)
    content: dict = {}
    module.on_save_checkpoint(content)
    state = module.state_dict()
    weights = sum(tensor.nbytes for name, tensor in state.items() if name not in content[NAMES])
    moments = sum(8 * p.numel() for p in module.ldm.trainable_parameters().values())
    assert 2.0e9 < weights + moments <= 2.2e9
    assert 0.8e9 < sum(state[name].nbytes for name in content[NAMES]) < 0.9e9
