"""Diffusers folders in every form, through the scripts, and back; and what is wrong with one, in one line."""

import json
import re

import diffusers_models
import numpy as np
import pytest
import tiny_stages
import torch
from safetensors.torch import load_file, save_file
from script_runner import run

import mindvis
from mindvis.chain.record import FileHashes, describe_inputs
from mindvis.checkpoints import build_ldm_from, load_published, read_diffusers, read_weights, write_diffusers
from mindvis.common.errors import InputError
from mindvis.dc_ldm import sample_ddim
from mindvis.decoding.baselines import load_class_ldm
from mindvis.decoding.decode import decode

STEM = "diffusion_pytorch_model"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The library's models of a name and their folder, made once."""
    made = {}

    def get(name):
        if name not in made:
            parts = diffusers_models.library_model(name)
            made[name] = parts, diffusers_models.save(parts, tmp_path_factory.mktemp(name))
        return made[name]

    return get


@pytest.fixture
def broken(models, tmp_path):
    """A copy of the folder like Stable Diffusion 1.5 that a test may damage."""
    return diffusers_models.save(models("sd15")[0], tmp_path / "broken")


def change(path, **settings):
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


FORMS = {
    "shards": {"max_shard_size": "200KB"},
    "half precision": {"variant": "fp16"},
    "shards of half precision": {"variant": "fp16", "max_shard_size": "100KB"},
    "pickles": {"safe_serialization": False},
    "shards of pickles": {"safe_serialization": False, "max_shard_size": "200KB"},
}


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_read_in_every_form_the_library_writes(models, tmp_path, form):
    """Bit for bit, half precision as float32."""
    parts, folder = models("sd15")
    half = "variant" in FORMS[form]
    if half:
        parts = diffusers_models.library_model("sd15")
        parts["unet"].half(), parts["vae"].half()
    diffusers_models.save(parts, tmp_path, **FORMS[form])
    assert len(list((tmp_path / "unet").glob(f"{STEM}*"))) > 2 or "shards" not in form
    assert not (tmp_path / "unet" / f"{STEM}.safetensors").exists()
    config, state = read_diffusers(tmp_path)
    wanted_config, wanted = read_diffusers(folder)
    assert config == wanted_config and state.keys() == wanted.keys()
    for name, tensor in state.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, wanted[name].half().float() if half else wanted[name])


def test_attention_of_old_autoencoders_is_read(broken):
    """Files of before 2023 name its maps query, key, value and proj_attn."""
    wanted = read_diffusers(broken)[1]
    path = broken / "vae" / f"{STEM}.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(path)
    renamed = {}
    for name, tensor in state.items():
        for new, former in old.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{former}.")
        renamed[name] = tensor
    assert renamed.keys() != state.keys()
    save_file(renamed, path)
    found = read_diffusers(broken)[1]
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_published_checkpoint_there_and_back(tmp_path):
    """model.ckpt -> diffusers folder -> model.ckpt, by the script: the weights are the same to the bit."""
    tiny_stages.simulate_experiment(tmp_path)
    source = tmp_path / "model.ckpt"
    content = torch.load(source, weights_only=True)
    classes = torch.randn(11, 24, generator=torch.manual_seed(0))
    content["state_dict"]["cond_stage_model.embedding.weight"] = classes
    torch.save(content, source)
    assert run("convert_checkpoint", source, tmp_path / "folder", "--to", "diffusers").status == 0
    back = tmp_path / "back" / "model.ckpt"
    outcome = run("convert_checkpoint", tmp_path / "folder", back)
    assert outcome.status == 0 and "unexpected      0" in outcome.out
    first, last = load_published(source), load_published(back)
    assert first.state_dict.keys() == last.state_dict.keys()
    assert all(torch.equal(tensor, last.state_dict[name]) for name, tensor in first.state_dict.items())
    published = torch.load(back, weights_only=True)["state_dict"]
    assert torch.equal(published["cond_stage_model.embedding.weight"], classes)
    for path in (source, tmp_path / "folder", back):
        assert torch.equal(load_class_ldm(path).conditioner.embedding.weight, classes)
    save_file({"other": classes}, tmp_path / "folder" / "class_embedding" / "model.safetensors")
    outcome = run("convert_checkpoint", tmp_path / "folder")
    assert outcome.status == 2 and "holds no weight [classes features]" in outcome.err


def refused(folder, *parts):
    """By the reader, and by a script: one line, status 2."""
    with pytest.raises(InputError) as caught:
        read_diffusers(folder)
    outcome = run("convert_checkpoint", folder)
    line = outcome.err.strip().splitlines()[-1]
    assert outcome.status == 2 and line.startswith("error: ") and "Traceback" not in outcome.err
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in line, line


def test_missing_shard(models, tmp_path):
    folder = diffusers_models.save(models("sd15")[0], tmp_path, max_shard_size="200KB")
    shard = sorted((folder / "unet").glob(f"{STEM}-0*"))[1]
    shard.unlink()
    refused(folder, shard.name, "index.json")


def test_shard_outside_of_the_folder(models, tmp_path):
    """An index can name files beside it only."""
    folder = diffusers_models.save(models("sd15")[0], tmp_path, max_shard_size="200KB")
    index = folder / "unet" / f"{STEM}.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"]
    change(index, weight_map={name: f"../vae/{place}" for name, place in places.items()})
    refused(folder, "../vae/", "beside it")


def test_weight_of_another_shape(broken):
    path = broken / "unet" / f"{STEM}.safetensors"
    save_file(load_file(path) | {"conv_in.weight": torch.zeros(32, 4, 1, 1)}, path)
    refused(broken, "'conv_in.weight'", "[32, 4, 1, 1]", "[32, 4, 3, 3]")


def test_weight_that_is_missing_and_one_too_many(broken):
    path = broken / "vae" / f"{STEM}.safetensors"
    state = load_file(path)
    save_file({name: tensor for name, tensor in state.items() if name != "decoder.conv_in.bias"}, path)
    refused(broken, "'decoder.conv_in.bias'", "missing")
    save_file(state | {"loss.weight": torch.zeros(1)}, path)
    refused(broken, "'loss.weight'", "no place")


def test_truncated_safetensors(broken):
    path = broken / "unet" / f"{STEM}.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused(broken, str(path), "not a readable safetensors file")


class Evil:
    def __reduce__(self):
        return print, ("this ran",)


def test_pickle_that_wants_to_run_code(broken, capfd):
    (broken / "unet" / f"{STEM}.safetensors").unlink()
    torch.save({"conv_in.weight": Evil()}, broken / "unet" / f"{STEM}.bin")
    refused(broken, f"{STEM}.bin", "print")
    assert "this ran" not in capfd.readouterr().out


@pytest.mark.parametrize("part", ["unet/config.json", "vae/config.json", "scheduler/scheduler_config.json"])
def test_parts_that_are_missing_or_no_json(broken, part):
    (broken / part).write_text("{")
    refused(broken, part, "not readable as JSON")
    (broken / part).unlink()
    refused(broken, part, "no such file")


def test_weights_that_are_no_numbers(broken):
    path = broken / "vae" / f"{STEM}.safetensors"
    state = load_file(path)
    state["decoder.conv_in.bias"][1] = float("nan")
    save_file(state, path)
    refused(broken, "'decoder.conv_in.bias'", "NaN or infinity")


def test_settings_that_are_nested_without_end(broken):
    (broken / "unet" / "config.json").write_text("[" * 100_000)
    refused(broken, "config.json", "not readable as JSON")


def test_image_that_is_smaller_than_a_pixel_of_its_latent(broken):
    change(broken / "unet" / "config.json", sample_size=None)
    change(broken / "vae" / "config.json", sample_size=1)
    refused(broken, "vae/config.json", "sample_size is 1", "at least 2")


def test_no_weights(broken):
    (broken / "unet" / f"{STEM}.safetensors").unlink()
    refused(broken, "unet: no weights", f"{STEM}.safetensors")


@pytest.mark.parametrize(("part", "settings", "parts"), [
    ("unet", {"down_block_types": ["CrossAttnDownBlock2D", "AttnDownBlock2D", "DownBlock2D"]},
     ["down_block_types", "'AttnDownBlock2D'", "nearest: CrossAttnDownBlock2D"]),
    ("unet", {"up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"]},
     ["up_block_types", "in reverse order"]),
    ("unet", {"act_fn": "gelu"}, ["act_fn is 'gelu'", "nearest: 'silu'"]),
    ("unet", {"norm_num_groups": 16}, ["norm_num_groups is 16", "nearest: 32"]),
    ("unet", {"class_embed_type": "projection"}, ["class_embed_type is 'projection'", "nearest: None"]),
    ("unet", {"addition_embed_type": "text_time"}, ["addition_embed_type is 'text_time'", "nearest: None"]),
    ("unet", {"cross_attention_dim": [24, 32, 40]}, ["cross_attention_dim", "nearest: 40"]),
    ("unet", {"attention_head_dim": [8, 8]}, ["attention_head_dim is [8, 8]", "each of the 3 blocks"]),
    ("unet", {"block_out_channels": [32, 48, 64]}, ["block_out_channels", "multiples of 32", "48 channels"]),
    ("unet", {"_class_name": "UNet2DModel"}, ["_class_name is 'UNet2DModel'", "'UNet2DConditionModel'"]),
    ("unet", {"in_channels": 9}, ["in_channels is 9", "needed: 4, the channels of the autoencoder's latents"]),
    ("unet", {"dropout": "no"}, ["dropout is 'no'", "0 to 1"]),
    ("unet", {"layers_per_block": [1, 2]}, ["layers_per_block is [1, 2]", "each of the 3 blocks"]),
    ("unet", {"sample_size": [8, 16]}, ["sample_size is [8, 16]", "side of a square"]),
    ("vae", {"_class_name": "AutoencoderTiny"}, ["'AutoencoderTiny'", "AutoencoderKL or VQModel"]),
    ("vae", {"shift_factor": 0.1}, ["shift_factor is 0.1", "nearest: None"]),
    ("vae", {"use_quant_conv": False}, ["use_quant_conv is False", "nearest: True"]),
    ("vae", {"scaling_factor": 0}, ["scaling_factor is 0", "positive number"]),
    ("vae", {"layers_per_block": 0}, ["layers_per_block is 0", "positive number"]),
    ("scheduler", {"_class_name": "EDMEulerScheduler"}, ["'EDMEulerScheduler'", "nearest: "]),
    ("scheduler", {"beta_schedule": "squaredcos_cap_v2"}, ["beta_schedule", "nearest: scaled_linear"]),
    ("scheduler", {"prediction_type": "sample"}, ["prediction_type is 'sample'", "nearest: epsilon"]),
    ("scheduler", {"trained_betas": [0.1]}, ["trained_betas", "nearest: None"]),
    ("scheduler", {"rescale_betas_zero_snr": True}, ["rescale_betas_zero_snr", "v_prediction"]),
    ("scheduler", {"num_train_timesteps": 0}, ["num_train_timesteps is 0", "positive number"]),
    ("scheduler", {"beta_start": -1}, ["beta_start is -1", "between 0 and 1"]),
    ("scheduler", {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}, ["shift is 3.0", "nearest: 1.0"]),
    ("scheduler", {"_class_name": "FlowMatchEulerDiscreteScheduler", "invert_sigmas": True}, ["invert_sigmas is True"]),
    ("scheduler", {"thresholding": True}, ["thresholding is True", "nearest: False"]),
    ("scheduler", {"timestep_type": "continuous"}, ["timestep_type is 'continuous'", "nearest: 'discrete'"]),
    ("scheduler", {"use_flow_sigmas": True}, ["use_flow_sigmas is True", "nearest: False"]),
    ("scheduler", {"prediction_type": "flow_prediction"}, ["_class_name is 'DDIMScheduler'", "FlowMatchEuler"]),
    ("scheduler", {"_class_name": "UniPCMultistepScheduler", "prediction_type": "flow_prediction"},
     ["use_flow_sigmas is False", "nearest: True"]),
    ("scheduler", {"_class_name": "UniPCMultistepScheduler", "prediction_type": "flow_prediction",
                   "use_flow_sigmas": True, "flow_shift": 3.0}, ["flow_shift is 3.0", "nearest: 1.0"]),
    ("scheduler", {"_class_name": "PNDMScheduler", "prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
     ["rescale_betas_zero_snr is True", "a PNDMScheduler does not rescale"]),
    ("scheduler", {"rescale_betas_zero_snr": "False"}, ["rescale_betas_zero_snr is 'False'", "true or false"]),
    ("scheduler", {"beta_schedule": ["linear"]}, ["beta_schedule is ['linear']", "nearest: scaled_linear"]),
    ("scheduler", {"prediction_type": {}}, ["prediction_type is {}", "nearest: epsilon"]),
    ("unet", {"attention_head_dim": 3}, ["multiples of 3", "attention_head_dim"]),
    ("unet", {"attention_head_dim": "8"}, ["attention_head_dim is '8'", "positive number"]),
    ("unet", {"use_linear_projection": "False"}, ["use_linear_projection is 'False'", "true or false"]),
    ("unet", {"down_block_types": [["DownBlock2D"]]}, ["down_block_types has ['DownBlock2D']"]),
    ("unet", {"sample_size": [[8], [8]]}, ["sample_size is [[8], [8]]", "side of a square"]),
    ("unet", {"cross_attention_dim": 2**70}, ["cross_attention_dim is 1180591620717411303424", "at most"]),
    ("unet", {"layers_per_block": 10**9}, ["layers_per_block is 1000000000", "at most 100"]),
    ("unet", {"transformer_layers_per_block": 10**9}, ["transformer_layers_per_block is 1000000000", "at most 100"]),
    ("vae", {"_class_name": ["AutoencoderKL"]}, ["_class_name is ['AutoencoderKL']", "AutoencoderKL or VQModel"]),
    ("vae", {"in_channels": 1}, ["in_channels is 1", "nearest: 3"]),
    ("vae", {"out_channels": 4}, ["out_channels is 4", "nearest: 3"]),
    ("vae", {"block_out_channels": [48, 64]}, ["block_out_channels", "48 channels"]),
    ("vae", {"layers_per_block": 10**9}, ["layers_per_block is 1000000000", "at most 100"]),
])  # fmt: skip
def test_settings_that_our_networks_do_not_have(models, tmp_path, part, settings, parts):
    """Refused by name, with the nearest supported value."""
    _, folder = models("sd15")
    for place in ("unet", "vae", "scheduler"):
        name = "scheduler_config.json" if place == "scheduler" else "config.json"
        (tmp_path / place).mkdir()
        (tmp_path / place / name).write_text((folder / place / name).read_text())
        if place == part:
            change(tmp_path / place / name, **settings)
    with pytest.raises(InputError) as caught:
        read_diffusers(tmp_path)
    for wanted in (part, *parts):
        assert wanted in str(caught.value)


def test_a_chain_sees_that_a_weight_of_a_folder_has_changed(broken, tmp_path):
    """Its digest is over all parts, so that Stage B runs again."""

    def digest():
        return describe_inputs("finetune_ldm", {"ldm": str(broken)}, FileHashes(tmp_path / "cache.json"))

    before = digest()
    path = broken / "vae" / f"{STEM}.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path)
    assert digest() != before and before["ldm"] != "absent"


def test_no_folder(tmp_path):
    """What is needed is said."""
    refused(tmp_path / "nowhere", "nowhere")


@pytest.fixture(scope="module", params=["sd21", "vq_f4"])
def stage_b(request, models, tmp_path_factory):
    """A folder of the library, and a run of Stage B that began with it and has ended."""
    folder = tmp_path_factory.mktemp("stage_b")
    tiny_stages.simulate_experiment(folder)
    _, ldm = models(request.param)
    words = tiny_stages.command("finetune_ldm", folder, folder / "run", f"ldm={ldm}", "trainer.max_epochs=1")
    outcome = run("finetune_ldm", *(word for word in words[2:] if not word.startswith("image_size=")))
    assert outcome.status == 0, outcome.err
    return ldm, folder


def test_stage_b_starts_from_a_folder(stage_b):
    """Image and latent size, context width, scale factor and prediction come from it; the run decodes."""
    source, folder = stage_b
    ldm, _ = build_ldm_from(folder / "run")
    config = read_diffusers(source)[0]["model"]["params"]
    assert ldm.parameterization == config["parameterization"]
    assert ldm.autoencoder.scale_factor == config["scale_factor"]
    assert ldm.unet.context_dim == config["unet_config"]["params"]["context_dim"]
    assert run("generate", f"run={folder / 'run'}", "num_samples=1", "num_steps=2", "stimuli=[0,1]").status == 0
    with np.load(folder / "run" / "decoded" / "decoded.npz") as file:
        side = ldm.latent_shape[1] * 2 ** (len(ldm.autoencoder.encoder.down) - 1)
        assert file["decoded"].shape == (2, 1, side, side, 3)


def test_exported_decoder_is_used_as_its_card_says(stage_b, tmp_path):
    """The ten lines of the card, run by diffusers, draw what our DDIM draws from the same noise; generate takes it."""
    pytest.importorskip("transformers")
    _, folder = stage_b
    export = tmp_path / "export"
    assert run("export_model", folder / "run", export, "--format", "diffusers").status == 0
    _, lines = re.findall(r"```python\n(.*?)```", (export / "README.md").read_text(), re.DOTALL)
    fmri = torch.randn(2, 1, build_ldm_from(export)[0].conditioner.encoder.num_voxels)
    scope = {"folder": str(export), "fmri": fmri}
    exec(lines, scope)
    ldm = build_ldm_from(folder / "run")[0].eval()
    noise = torch.randn(2, *ldm.latent_shape, generator=torch.manual_seed(0))

    with torch.no_grad():
        context = ldm.conditioner(fmri)
        arguments = (noise, ldm.schedule.alphas_cumprod, 50)
        predicted = {"prediction": ldm.sampled_prediction}
        latent = sample_ddim(lambda x, t: ldm.predict(x, t, context), *arguments, **predicted)
        pictures = ldm.autoencoder.decode(latent)
    torch.testing.assert_close(scope["latent"], latent, atol=1e-4 * latent.abs().max().item(), rtol=0)
    assert (scope["pictures"] - pictures).abs().median() < 1e-4  # a code may tip over
    again, whole = read_weights(export), read_weights(folder / "run")
    assert again.kind == "ldm" and again.state_dict.keys() == whole.state_dict.keys()
    assert all(torch.equal(tensor, whole.state_dict[name]) for name, tensor in again.state_dict.items())
    assert again.settings["fmri"] == whole.settings["fmri"]
    data = [f"data.root={folder / 'data' / 'Kamitani' / 'npz'}", "data.subjects=[sbj_1]"]
    sampling = ["num_samples=1", "num_steps=2", "stimuli=[0]", f"output={tmp_path / 'd'}"]
    outcome = run("generate", f"run={export}", *data, *sampling)
    assert outcome.status == 0, outcome.err
    rows = np.zeros((1, mindvis.load(export).num_voxels), np.float32)
    assert mindvis.load(export).decode(rows, num_samples=1, num_steps=2, scaling="none").shape[:2] == (1, 1)


def test_other_scripts_take_a_folder(stage_b, tmp_path):
    """The baseline without classes, said so; the table of memory."""
    ldm, folder = stage_b
    data = [f"data.root={folder / 'data' / 'Kamitani' / 'npz'}", "data.subjects=[sbj_1]"]
    outcome = run("baseline_ridge", f"ldm={ldm}", *data, f"output={tmp_path / 'ridge'}", "num_steps=2", "num_samples=1")
    assert outcome.status == 0, outcome.err
    assert "class skipped" in outcome.out and (tmp_path / "ridge" / "latent" / "decoded.npz").is_file()
    table = run("estimate_memory", "--ldm", ldm)
    assert table.status == 0 and table.out.count("| B |") == 8 and "| A |" not in table.out


def test_a_run_is_looked_into(stage_b, tmp_path):
    """Attention and occlusion of a decoder that began with a folder; a region that is hidden changes its pictures."""
    _, folder = stage_b
    sampling = ["classifier=demo", "num_ways=5", "num_steps=2", "num_stimuli=3", "sampler=ddim", "num_bootstrap=50"]
    outcome = run("look_inside", f"run={folder / 'run'}", f"output={tmp_path}", *sampling, "rois=[V1,LOC]")
    assert outcome.status == 0, outcome.err
    summary = json.loads((tmp_path / "inside.json").read_text())
    assert summary["stage"] == "B" and {row["roi"] for row in summary["occlusion"]} == {"V1", "LOC", "all"}


def test_a_decoder_in_the_published_format_names_its_folder(stage_b, tmp_path):
    """finetuned.pth with `ldm=FOLDER` and its encoder decodes as the run does; without them one line asks."""
    ldm, folder = stage_b
    for source, name in ((folder / "run", "finetuned.pth"), (folder / "stage_a", "fmri_encoder.pth")):
        if name == "fmri_encoder.pth":
            words = tiny_stages.command("pretrain_mbm", folder, source, "trainer.max_epochs=1")
            assert run("pretrain_mbm", *words[2:]).status == 0
        assert run("convert_checkpoint", source, tmp_path / name).status == 0
    few = ["num_samples=1", "num_steps=2", "stimuli=[0]"]
    assert run("generate", f"run={folder / 'run'}", *few, f"output={tmp_path / 'a'}").status == 0
    data = [f"data.root={folder / 'data' / 'Kamitani' / 'npz'}", "data.name=god", "data.subjects=[sbj_1]"]
    published = [f"run={tmp_path / 'finetuned.pth'}", *few, *data, f"output={tmp_path / 'b'}"]
    outcome = run("generate", *published, f"ldm={ldm}", f"fmri_encoder={tmp_path / 'fmri_encoder.pth'}")
    assert outcome.status == 0, outcome.err
    first, second = (np.load(tmp_path / name / "decoded.npz")["decoded"] for name in "ab")
    assert np.array_equal(first, second)


def test_an_objective_of_straight_lines_trains_and_decodes(stage_b, tmp_path):
    """`objective=flow` on a model that predicts something else; the euler sampler decodes it."""
    ldm, folder = stage_b
    settings = [f"ldm={ldm}", "objective=flow", "trainer.max_epochs=1"]
    words = tiny_stages.command("finetune_ldm", folder, tmp_path / "run", *settings)
    outcome = run("finetune_ldm", *(word for word in words[2:] if not word.startswith("image_size=")))
    assert outcome.status == 0, outcome.err
    sampling = ["num_samples=1", "num_steps=3", "stimuli=[0]", "sampler=euler"]
    assert run("generate", f"run={tmp_path / 'run'}", *sampling).status == 0


def test_a_model_of_straight_lines_goes_out_and_in(models, tmp_path):
    """As FlowMatchEulerDiscreteScheduler, with the same pictures; unipc_averaged is refused for it."""
    ldm = diffusers_models.ours(models("sd15")[1])
    config = ldm.config
    config["model"]["params"] |= {"parameterization": "flow"}
    write_diffusers(ldm, tmp_path, config)
    again = diffusers_models.ours(tmp_path)
    assert again.parameterization == "flow" and again.schedule.flow
    fmri = np.zeros((1, 32), np.float32)
    options = {"num_samples": 1, "num_steps": 3}
    for sampler in ("euler", "ddim", "plms", "dpm_solver", "unipc"):
        assert decode(again, fmri, [0], sampler=sampler, **options).shape == (1, 1, 16, 16, 3)
    with pytest.raises(InputError, match="unipc_averaged"):
        decode(again, fmri, [0], sampler="unipc_averaged", **options)
