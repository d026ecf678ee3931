"""Published weights in and out: agreement, exact key lists at full size, strict loading, bad files."""

import copy
import gzip
import resource
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml

from mindvis.checkpoints import (
    DescribeWeights,
    Weights,
    blank_module,
    build_encoder,
    build_label2img,
    build_ldm_from,
    build_mbm,
    compare,
    export_ldm,
    export_mbm,
    export_model,
    import_ldm,
    import_mbm,
    load_published,
    read_checkpoint,
    read_label2img,
    read_ldm,
    read_mbm,
    read_safetensors,
    read_weights,
    save_checkpoint,
    save_safetensors,
    write_weights,
)
from mindvis.checkpoints.builders import NOT_IN_LABEL2IMG
from mindvis.checkpoints.torch_files import load_torch
from mindvis.checkpoints.weights import ENVELOPE, envelope
from mindvis.common.errors import InputError
from mindvis.dc_ldm import build_ldm
from mindvis.sc_mbm import FMRIEncoder, MaskedBrainModel

GOLDEN = Path(__file__).parent / "golden"
FILES = GOLDEN / "checkpoints"
ENCODER, DECODER = FILES / "fmri_encoder.pth", FILES / "finetuned.pth"
FIGURE = {"name": "50_way_top_1/vit_h_14", "set": "decoded", "value": 0.2385, "low": 0.19, "high": 0.29, "chance": 0.02}
FIGURE |= {"n": 50, "num_samples": 5}
FULL_UNET = {
    "image_size": 64,
    "model_channels": 192,
    "attention_resolutions": [8, 4, 2],
    "num_res_blocks": 2,
    "channel_mult": [1, 2, 3, 5],
    "context_dim": 512,
}
FULL_AUTOENCODER = {"resolution": 256, "ch": 128, "ch_mult": [1, 2, 4], "num_res_blocks": 2}


def same(one: dict, other: dict) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def shapes(state: dict) -> dict:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in state.items()}


def full_config() -> dict:
    """The published config at full size (DESIGN 5), from the small one."""
    config = copy.deepcopy(yaml.safe_load((FILES / "config.yaml").read_text()))
    params = config["model"]["params"]
    params["unet_config"]["params"].update(FULL_UNET)
    params["first_stage_config"]["params"]["n_embed"] = 8192
    params["first_stage_config"]["params"]["ddconfig"].update(FULL_AUTOENCODER)
    return config


def listed(name: str) -> dict[str, torch.Tensor]:
    """A full-size published state dict on the meta device."""
    lines = gzip.decompress((GOLDEN / "keys" / f"{name}.tsv.gz").read_bytes()).decode().splitlines()
    rows = [line.split("\t") for line in lines]
    sizes = {key: [int(n) for n in shape.split("x")] if shape else [] for key, shape, _ in rows}
    return {key: torch.empty(sizes[key], dtype=getattr(torch, kind), device="meta") for key, _, kind in rows}


def write_label2img(folder: Path) -> Path:
    """A published model.ckpt with its config.yaml: UNet and autoencoder of the decoder, moving average and all."""
    state = load_torch(DECODER)["model_state_dict"]
    kept = {k: v for k, v in state.items() if not k.startswith("cond_stage_model") and "time_embed_condtion" not in k}
    extra = {"model_ema.decay": torch.tensor(0.99), "cond_stage_model.embedding.weight": torch.ones(11, 24)}
    folder.mkdir()
    torch.save({"state_dict": {**kept, **extra}, "epoch": 1, "callbacks": {}}, folder / "model.ckpt")
    (folder / "config.yaml").write_text((FILES / "config.yaml").read_text())
    return folder / "model.ckpt"


@pytest.fixture
def label2img(tmp_path) -> Path:
    return write_label2img(tmp_path / "label2img")


@pytest.fixture
def expected() -> dict[str, torch.Tensor]:
    arrays = np.load(FILES / "expected.npz")
    return {name: torch.from_numpy(arrays[name]) for name in arrays.files if name != "meta"}


def test_published_decoder_agrees(expected):
    """finetuned.pth gives the published context, noise and pictures, its heads taken from the encoder beside it."""
    ldm, report = build_ldm_from(DECODER)
    ldm.eval()
    assert not report.missing and not report.unexpected
    with torch.no_grad():
        context = ldm.conditioner(expected["in/fmri"])
        eps = ldm.unet(expected["in/z"], expected["in/t"], expected["out/context"])
        decoded = ldm.autoencoder.decode(expected["in/z"], quantize=True)
    torch.testing.assert_close(context, expected["out/context"], atol=2e-6, rtol=0)
    torch.testing.assert_close(eps, expected["out/eps"], atol=2e-5, rtol=0)
    torch.testing.assert_close(decoded, expected["out/decoded"], atol=2e-5, rtol=0)


def test_shared_label2img_file_loads(shared):
    """The small model.ckpt fills UNet and autoencoder; conditioner and time-step condition are expected missing."""
    folder = shared / "parity" / "checkpoints"
    ldm, report = build_label2img(folder / "model.ckpt", build_encoder(folder / "fmri_encoder.pth"))
    assert report.missing and all(name.startswith(NOT_IN_LABEL2IMG) for name in report.missing)
    published = load_torch(folder / "model.ckpt")["state_dict"]
    name = "input_blocks.0.0.weight"
    assert torch.equal(ldm.unet.state_dict()[name], published[f"model.diffusion_model.{name}"])


def test_kinds_and_settings(label2img):
    """Each published file is recognised by what it holds, its settings read off its config and its shapes."""
    encoder, decoder, ldm = (load_published(path) for path in (ENCODER, DECODER, label2img))
    assert [weights.kind for weights in (encoder, decoder, ldm)] == ["mbm", "ldm", "label2img"]
    assert encoder.settings["num_voxels"] == 96 and encoder.settings["num_heads"] == 4
    assert MaskedBrainModel(**encoder.settings).load_state_dict(encoder.state_dict)
    assert encoder.config["mask_ratio"] == 0.75
    assert decoder.settings["encoder"] == {
        name: 16 if name == "num_heads" else encoder.settings[name] for name in decoder.settings["encoder"]
    }
    assert ldm.settings["model"]["params"]["unet_config"]["params"]["context_dim"] == 24
    assert not [name for name in ldm.state_dict if name.startswith(("model_ema", "cond_stage", "betas"))]


def test_renaming_is_reversible():
    """Import undoes export and export undoes import, the noise schedule equal to the published one bit for bit."""
    published = load_torch(DECODER)["model_state_dict"]
    ours = import_ldm(published)
    back = export_ldm(ours)
    assert same(import_ldm(back), ours)
    assert set(back) == set(published) and all(torch.equal(back[name], published[name]) for name in published)
    state = load_torch(ENCODER)["model"]
    assert same(import_mbm(export_mbm(state)), state) and same(export_mbm(import_mbm(state)), state)


def test_full_size_encoder_keys():
    """Every key and shape of the full-size fmri_encoder.pth is one of MaskedBrainModel's, and the other way round."""
    with torch.device("meta"):
        own = MaskedBrainModel().state_dict()
    state = listed("fmri_encoder_god")
    report = compare(import_mbm(state), own)
    assert sorted(report.matched) == sorted(state) and not report.missing and not report.unexpected
    assert shapes(export_mbm(own)) == shapes(state)


def test_full_size_decoder_keys():
    """Every key and shape of the full-size finetuned.pth is accounted for, and export writes exactly that list."""
    with torch.device("meta"):
        own = build_ldm(full_config(), FMRIEncoder()).state_dict()
    state = listed("finetuned_god_sbj_3")
    report = compare(import_ldm(state), own)
    assert len(report.matched) == len(own) == len(state) - 12 and not report.missing and not report.unexpected
    assert shapes(export_ldm(own)) == shapes(state)


def test_full_size_label2img_keys():
    """The full-size model.ckpt lacks the conditioner and the time-step condition and nothing else."""
    weights = Weights("label2img", import_ldm(listed("label2img_model_without_ema")), full_config())
    report = compare(weights.state_dict, blank_module(weights).state_dict())
    assert len(report.matched) == 906 - 13 and not report.unexpected
    assert all(name.startswith(NOT_IN_LABEL2IMG) for name in report.missing)
    parts = {name.split(".")[0] for name in report.missing}
    assert parts == {"conditioner", "unet"} and len([n for n in report.missing if n.startswith("unet")]) == 6


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize(("source", "key"), [(ENCODER, "model"), (DECODER, "model_state_dict")], ids=["mbm", "ldm"])
def test_weights_of_wrapped_modules_are_read(tmp_path, source, key, prefix):
    """What DataParallel or torch.compile put before every name is taken off."""
    content = load_torch(source)
    torch.save({key: {prefix + name: tensor for name, tensor in content[key].items()}}, tmp_path / "x.pth")
    assert same(read_weights(tmp_path / "x.pth").state_dict, read_weights(source).state_dict)


def test_parts_that_were_compiled_are_read(tmp_path):
    """A compiled network inside a module, in a published file and in a checkpoint of ours."""
    published = load_torch(DECODER)["model_state_dict"]
    state = {name.replace("diffusion_model.", "diffusion_model._orig_mod."): w for name, w in published.items()}
    torch.save({"model_state_dict": state}, tmp_path / "x.pth")
    assert same(read_weights(tmp_path / "x.pth").state_dict, read_weights(DECODER).state_dict)
    weights = read_weights(ENCODER)
    state = {f"network._orig_mod.{name}": tensor for name, tensor in weights.state_dict.items()}
    save_checkpoint(tmp_path / "x.ckpt", {"state_dict": state, ENVELOPE: envelope(weights, "network.")})
    assert same(read_weights(tmp_path / "x.ckpt").state_dict, weights.state_dict)


# What gen_eval.py and the tuning of the published code ask their `config` for.
READ_BY_GEN_EVAL = ("roi", "kam_subs", "bold5000_subs", "patch_size", "test_category", "logger", "ddim_steps", "HW")
READ_BY_GEN_EVAL += ("num_samples", "global_pool", "use_time_cond", "dataset")
READ_OF_ENCODER = ("patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio")


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"data": {"name": "god", "subjects": ["sbj_3"], "roi": "VC"}}, ("GOD", ["sbj_3"], [], "VC")),
        ({"data": {"name": "bold5000", "subjects": ["CSI1"]}}, ("BOLD5000", [], ["CSI1"], None)),
        (None, ("GOD", ["sbj_3"], ["CSI1"], "VC")),
    ],
    ids=["god", "bold5000", "as the published file"],
)
def test_published_programs_can_read_an_exported_decoder(tmp_path, config, found):
    """Plain torch.load gives an object of a standard class with every attribute they ask for, and a generator state."""
    weights = load_published(DECODER)
    weights = weights if config is None else replace(weights, config=config)
    write_weights(tmp_path / "finetuned.pth", weights)
    content = torch.load(tmp_path / "finetuned.pth", weights_only=False)
    read = content["config"]
    assert type(read) is types.SimpleNamespace and all(hasattr(read, name) for name in READ_BY_GEN_EVAL)
    assert (read.dataset, read.kam_subs, read.bold5000_subs, read.roi) == found
    assert (read.patch_size, read.global_pool, read.use_time_cond, read.num_samples) == (8, False, True, 5)
    assert content["state"].dtype == torch.uint8 and content["state"].shape == (16,)
    assert set(content["model_state_dict"]) == set(load_torch(DECODER)["model_state_dict"])


def test_published_programs_can_read_an_exported_encoder(tmp_path):
    """As above, for Stage A: its shape as attributes, and `model`."""
    weights = load_published(ENCODER)
    write_weights(tmp_path / "fmri_encoder.pth", replace(weights, config={}))
    content = torch.load(tmp_path / "fmri_encoder.pth", weights_only=False)
    assert type(content["config"]) is types.SimpleNamespace
    assert {name: getattr(content["config"], name) for name in READ_OF_ENCODER} == {
        name: weights.settings[name] for name in READ_OF_ENCODER
    }
    assert same(content["model"], load_torch(ENCODER)["model"])


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".pth"])
@pytest.mark.parametrize("source", [ENCODER, DECODER], ids=["mbm", "ldm"])
def test_every_form_gives_the_same_weights(tmp_path, source, suffix):
    """Weights written in any form are read back with their kind, settings and tensors."""
    weights = load_published(source)
    write_weights(tmp_path / f"x{suffix}", weights)
    found = read_weights(tmp_path / f"x{suffix}")
    assert (found.kind, found.settings) == (weights.kind, weights.settings)
    assert set(found.state_dict) == set(weights.state_dict)
    assert all(torch.equal(tensor, found.state_dict[name]) for name, tensor in weights.state_dict.items())
    assert [path.name for path in tmp_path.iterdir()] == [f"x{suffix}"]


def test_label2img_is_written_with_its_config(tmp_path, label2img):
    """A label-to-image model written as published has its config.yaml beside it and is read back."""
    weights = load_published(label2img)
    write_weights(tmp_path / "out" / "model.ckpt", weights)
    config, state = read_label2img(tmp_path / "out")
    assert config == weights.settings and set(state) == set(weights.state_dict)


def test_exported_folder_decodes_alike(tmp_path, expected):
    """A shared folder is a decoder with the same context, and its card states data, subject and score."""
    ldm_config, encoder, flags, state = read_ldm(DECODER)
    weights = Weights("ldm", state, {"encoder": encoder, **flags, "ldm_config": ldm_config})
    data = {"name": "god", "subjects": ["sbj_3"], "roi": "VC"}
    export_model(tmp_path / "shared", weights, data=data, report={"figures": [FIGURE]})
    ldm, _ = build_ldm_from(tmp_path / "shared")
    context = ldm.eval().conditioner(expected["in/fmri"])
    torch.testing.assert_close(context, expected["out/context"], atol=2e-6, rtol=0)
    card = (tmp_path / "shared" / "README.md").read_text()
    assert all(
        text in card
        for text in (
            "sbj_3",
            "| 50_way_top_1/vit_h_14 | decoded | 0.2385 | 0.19 to 0.29 | 0.02 | 50 x 5 |",
            "Licence",
            "| num_heads | 4 |",
        )
    )


def test_run_checkpoint_is_a_source(tmp_path):
    """A Lightning checkpoint that describes its network is read like a published file."""
    settings = load_published(ENCODER).settings
    module = pl.LightningModule()
    module.network = MaskedBrainModel(**settings)
    checkpoint = {"state_dict": module.state_dict(), "epoch": 3}
    DescribeWeights("mbm", settings).on_save_checkpoint(None, module, checkpoint)
    save_checkpoint(tmp_path / "last.ckpt", checkpoint)
    found, state = read_mbm(tmp_path / "last.ckpt")
    assert found == settings and set(state) == set(module.network.state_dict())


def test_stage_a_of_another_length():
    """Positions are resized to longer fMRI, for the encoder and for the whole model; the table says so."""
    model, report = build_mbm(ENCODER, num_voxels=160)
    assert report.resized == ["pos_embed", "decoder_pos_embed"] and "resized         2" in report.table()
    assert model.pos_embed.shape == (1, 21, 32)
    assert torch.equal(build_encoder(ENCODER, num_voxels=160).pos_embed, model.pos_embed)


def test_checkpoint_survives_a_failed_write(tmp_path, monkeypatch):
    """What was saved before stays whole when writing fails, and nothing half-written is left."""
    path = tmp_path / "x.pt"
    save_checkpoint(path, {"step": 1, "w": torch.ones(2)})
    with pytest.raises(TypeError):
        save_checkpoint(path, {"step": 2, "bad": object()})
    monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    with pytest.raises(OSError, match="Input/output"):
        save_checkpoint(path, {"step": 3})
    assert read_checkpoint(path)["step"] == 1 and [p.name for p in tmp_path.iterdir()] == ["x.pt"]


def test_safetensors_part_shared_memory(tmp_path):
    """Tensors that share memory, which safetensors refuses, are written apart."""
    base = torch.arange(6.0)
    save_safetensors(tmp_path / "x.safetensors", {"a": base, "b": base[2:], "c": base.view(2, 3).t()}, {"k": "v"})
    state, metadata = read_safetensors(tmp_path / "x.safetensors")
    assert torch.equal(state["b"], base[2:]) and torch.equal(state["c"], base.view(2, 3).t()) and metadata == {"k": "v"}


def test_safetensors_that_do_not_fit_are_one_line(tmp_path):
    """The library speaks of a full disk, or a limit of the size, with an error of its own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        with pytest.raises(InputError, match="w.safetensors: File too large"):
            save_safetensors(tmp_path / "w.safetensors", {"a": torch.zeros(1000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())
