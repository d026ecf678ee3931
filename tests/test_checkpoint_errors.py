"""Files and weights that do not fit: one line each, and nothing changed."""

import json

import pytest
import torch
from test_checkpoints import DECODER, ENCODER, same, write_label2img

from mindvis.checkpoints import (
    export_model,
    load_published,
    load_state,
    read_ldm,
    read_mbm,
    read_weights,
    save_safetensors,
    write_weights,
)
from mindvis.checkpoints.torch_files import load_torch
from mindvis.common.errors import InputError
from mindvis.sc_mbm import MaskedBrainModel


@pytest.fixture
def label2img(tmp_path):
    return write_label2img(tmp_path / "label2img")


def state_with(**changes: torch.Tensor | None) -> dict:
    state = dict(load_torch(ENCODER)["model"])
    state.update({name: value for name, value in changes.items() if value is not None})
    return {name: value for name, value in state.items() if changes.get(name, value) is not None}


LOADS = {
    "missing": (state_with(cls_token=None), "cls_token"),
    "extra": (state_with(evil=torch.ones(1)), "evil"),
    "shape": (state_with(cls_token=torch.ones(1, 1, 33)), r"\[1, 1, 33\].*\[1, 1, 32\]"),
    "nan": (state_with(cls_token=torch.full((1, 1, 32), torch.nan)), "NaN"),
    "infinite": (state_with(mask_token=torch.full((1, 1, 16), torch.inf)), "infinite"),
    "length": (state_with(pos_embed=torch.ones(1, 21, 32)), r"\[1, 21, 32\].*\[1, 13, 32\]"),
    "width": (state_with(pos_embed=torch.ones(1, 13, 64)), r"\[1, 13, 64\]"),
}


@pytest.mark.parametrize("name", LOADS)
def test_load_state_is_strict(name):
    """A load that does not fit names the file, the weight and both sides, and leaves the module as it was."""
    state, message = LOADS[name]
    module = MaskedBrainModel(**load_published(ENCODER).settings)
    before = {key: tensor.clone() for key, tensor in module.state_dict().items()}
    with pytest.raises(InputError, match=message) as caught:
        load_state(module, state, source="the/file.pth")
    assert str(caught.value).startswith("the/file.pth: ")
    assert same(before, module.state_dict())


CONTENTS = {
    "a list": [1, 2],
    "no known key": {"weights": {}, "epoch": 1},
    "empty state": {"model": {}},
    "state of no tensors": {"model": {"cls_token": 3}},
    "state that is a tensor": {"model": torch.ones(3)},
    "names that are no text": {"model": {1: torch.ones(3)}},
    "the same weights twice": {"model": {**state_with(), "module.cls_token": torch.ones(1, 1, 32)}},
    "no positions": {"model": state_with(pos_embed=None)},
    "positions of two axes": {"model": state_with(pos_embed=torch.ones(13, 32))},
    "no decoder": {"model": {k: v for k, v in state_with().items() if "decoder" not in k}},
    "false heads": {"model": state_with(), "config": {"num_heads": "many"}},
    "no heads": {"model": state_with(), "config": {"num_heads": 0}},
    "label2img without config.yaml": {"state_dict": {"model.diffusion_model.x": torch.ones(1)}},
    "no diffusion model": {"state_dict": {"layer.weight": torch.ones(1)}},
    "decoder without encoder": {"model_state_dict": {"model.diffusion_model.x": torch.ones(1)}},
    "unknown kind": {"state_dict": {"w": torch.ones(1)}, "weights": {"kind": "gan", "settings": {}}},
    "no settings": {"state_dict": {"w": torch.ones(1)}, "weights": {"kind": "mbm"}},
    "no state": {"weights": {"kind": "mbm", "settings": {}}},
}


@pytest.mark.parametrize("name", CONTENTS)
def test_foreign_content_gives_one_line(tmp_path, name):
    """A torch file that is no model of ours or theirs is one line that names it."""
    torch.save(CONTENTS[name], tmp_path / "x.pth")
    with pytest.raises(InputError) as caught:
        read_weights(tmp_path / "x.pth")
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["model: [", "- 1", "other: 1", "model: {params: ${nowhere}}"])
def test_broken_config_gives_one_line(label2img, text):
    """A config.yaml that is damaged or another file is one line that names it."""
    (label2img.parent / "config.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        load_published(label2img)
    assert "config.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_wrong_kind_is_named(tmp_path):
    """A file of another stage is refused by what it holds and what is needed."""
    with pytest.raises(InputError, match="tuned decoder; needed: a Stage A model"):
        read_mbm(DECODER)
    with pytest.raises(InputError, match="Stage A model; needed: a tuned decoder"):
        read_ldm(ENCODER)
    with pytest.raises(InputError, match="no weights"):
        read_weights(tmp_path)
    with pytest.raises(InputError, match="unknown form"):
        write_weights(tmp_path / "x.zip", load_published(ENCODER))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("pretrains/GOD/fmri_encoder.pth", "figshare.com/s/94cd778e6afafb00946e; in its place: your own"),
        ("pretrains/ldm/label2img/model.ckpt", "latent-diffusion/nitro/cin/model.ckpt; in its place: ldm=demo"),
        ("pretrains/ldm/layout2img", "layout2img_model.zip; in its place: ldm=demo"),
    ],
)
def test_an_absent_published_file_says_where_it_comes_from(path, words):
    """Its address and what can be taken in its place, in the same line; other names have none."""
    with pytest.raises(InputError, match="no such file") as caught:
        read_weights(path)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(InputError) as caught:
        read_weights("runs/mine")
    assert "published at" not in str(caught.value)


def test_finetuned_alone_asks_for_what_it_lacks(tmp_path, label2img):
    """finetuned.pth without a config.yaml asks for one; without an encoder it has 16 heads; a false one is named."""
    alone = tmp_path / "finetuned.pth"
    alone.write_bytes(DECODER.read_bytes())
    with pytest.raises(InputError, match="label2img"):
        read_ldm(alone)
    for given in (label2img, label2img.parent, label2img.parent / "config.yaml"):
        assert read_ldm(alone, label2img=given)[1]["num_heads"] == 16
    with pytest.raises(InputError, match="demoo: no such file"):
        read_ldm(alone, label2img="demoo")
    assert read_ldm(alone, label2img=label2img, fmri_encoder=ENCODER)[1]["num_heads"] == 4
    other = MaskedBrainModel(num_voxels=96, patch_size=8, embed_dim=48, depth=1, decoder_embed_dim=16, decoder_depth=1)
    torch.save({"model": other.state_dict()}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="embed_dim is 48"):
        read_ldm(alone, label2img=label2img, fmri_encoder=tmp_path / "other.pth")


@pytest.mark.parametrize("metadata", [{}, {"weights": "{"}, {"weights": json.dumps({"kind": "mbm"})}])
def test_foreign_safetensors_give_one_line(tmp_path, metadata):
    """A safetensors file without our settings is one line that names it, as is one that is damaged."""
    save_safetensors(tmp_path / "x.safetensors", {"w": torch.ones(2)}, metadata)
    with pytest.raises(InputError, match="x.safetensors"):
        read_weights(tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="not a readable safetensors"):
        read_weights(tmp_path / "x.safetensors")


def test_only_decoders_are_shared(tmp_path):
    """Other kinds, decoders without their LDM config and folders in use are refused before anything is written."""
    for source in (ENCODER, DECODER):
        with pytest.raises(InputError, match="needed: a tuned decoder"):
            export_model(tmp_path / "shared", load_published(source))
    assert not (tmp_path / "shared").exists()
