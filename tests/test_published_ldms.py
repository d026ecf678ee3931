"""Text- and layout-to-image LDMs in place of the label-to-image one: configs/ldm/*.yaml, their sizes, their weights."""

import copy
from pathlib import Path

import ldm_cases
import pytest
import torch
import yaml

from mindvis.checkpoints import Weights, build_label2img, export_ldm, write_weights
from mindvis.checkpoints.torch_files import load_torch
from mindvis.common.errors import InputError
from mindvis.dc_ldm import KLAutoencoder, NoiseSchedule, VQAutoencoder, build_ldm, build_schedule
from mindvis.decoding.decode import decode
from mindvis.sc_mbm import FMRIEncoder

FOLDER = Path(__file__).parents[1] / "configs" / "ldm"
NAMES = ("text2img", "layout2img")
SIZES = {  # UNet without the time-step condition, autoencoder, in M
    "text2img": (872.3, 83.7),
    "layout2img": (246.3, 55.3),
    "text2img256": (403.6, 55.3),
}


def config(name: str) -> dict:
    if name != "text2img256":
        return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    found = ldm_cases.full_size_config()  # differs from the label-to-image model in its heads and context
    unet = found["model"]["params"]["unet_config"]["params"]
    del unet["num_heads"]
    unet.update(num_head_channels=32, context_dim=640)
    return found


def params_of(found: dict, section: str) -> dict:
    return found["model"]["params"][section]["params"]


def tiny(name: str) -> dict:
    """The published config with small networks: every option is there, only sizes differ."""
    found = copy.deepcopy(config(name))
    unet, autoencoder = (params_of(found, section) for section in ("unet_config", "first_stage_config"))
    unet.update(model_channels=32, channel_mult=[1, 2], attention_resolutions=[2], num_res_blocks=1, context_dim=16)
    autoencoder["ddconfig"].update(ch=32, ch_mult=[1, 1, 1], num_res_blocks=1, resolution=16)
    autoencoder.update({"n_embed": 16} if "n_embed" in autoencoder else {})
    return found


def small_encoder() -> FMRIEncoder:
    return FMRIEncoder(num_voxels=96, patch_size=8, embed_dim=32, depth=1, num_heads=4)


def conv(inputs: int, outputs: int, side: int = 3) -> int:
    return outputs * (inputs * side**2 + 1)


def linear(inputs: int, outputs: int) -> int:
    return outputs * (inputs + 1)


def count_autoencoder(options: dict) -> int:
    """Parameters of an autoencoder without attention besides the middle, by arithmetic."""
    shape, embed_dim = options["ddconfig"], options["embed_dim"]
    widths, blocks, z = [shape["ch"] * m for m in shape["ch_mult"]], shape["num_res_blocks"], shape["z_channels"]
    last, moments = widths[-1], 1 + shape["double_z"]

    def residual(a: int, b: int) -> int:
        return 2 * a + conv(a, b) + 2 * b + conv(b, b) + (conv(a, b, 1) if a != b else 0)

    middle = 2 * residual(last, last) + 2 * last + 4 * conv(last, last, 1)
    ends = (
        conv(3, shape["ch"]) + 2 * last + conv(last, moments * z) + conv(z, last) + 2 * widths[0] + conv(widths[0], 3)
    )
    down = sum(
        residual(a, b) + (blocks - 1) * residual(b, b) for a, b in zip([shape["ch"], *widths], widths, strict=False)
    )
    up = sum(
        residual(a, b) + blocks * residual(b, b) for a, b in zip([last, *widths[::-1]], widths[::-1], strict=False)
    )
    resampled = sum(conv(width, width) for width in (*widths[:-1], *widths[1:]))
    codes = options.get("n_embed", 0) * embed_dim
    quant = conv(moments * z, moments * embed_dim, 1) + conv(embed_dim, z, 1)
    return 2 * middle + ends + down + up + resampled + codes + quant


def count_unet(options: dict) -> int:
    """Parameters of a UNet without the time-step condition, by arithmetic."""
    base, context = options["model_channels"], options["context_dim"]
    channels, depth = [base * m for m in options["channel_mult"]], options["transformer_depth"]
    attended, blocks = options["attention_resolutions"], options["num_res_blocks"]

    def residual(a: int, b: int) -> int:
        return 2 * a + conv(a, b) + linear(4 * base, b) + 2 * b + conv(b, b) + (conv(a, b, 1) if a != b else 0)

    def transformer(c: int) -> int:
        attention = 4 * c * c + c + (2 * c * c + 2 * context * c + c)
        block = attention + linear(c, 8 * c) + linear(4 * c, c) + 3 * 2 * c
        return 2 * c + 2 * conv(c, c, 1) + depth * block

    total = linear(base, 4 * base) + linear(4 * base, 4 * base) + conv(options["in_channels"], base)
    skips, width = [base], base
    for level, c in enumerate(channels):
        for _ in range(blocks):
            total += residual(width, c) + (2**level in attended) * transformer(c)
            width = c
            skips.append(c)
        if level < len(channels) - 1:
            total += conv(c, c)
            skips.append(c)
    total += 2 * residual(width, width) + transformer(width)
    for level, c in reversed(list(enumerate(channels))):
        for _ in range(blocks + 1):
            total += residual(width + skips.pop(), c) + (2**level in attended) * transformer(c)
            width = c
        total += conv(c, c) if level else 0
    return total + 2 * base + conv(base, options["out_channels"])


def count_time_condition(options: dict) -> int:
    return linear(77, 38) + linear(38, 1) + linear(options["context_dim"], 4 * options["model_channels"])


def number(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", SIZES)
def test_published_sizes(name):
    """Stage B builds with the published encoder; UNet and autoencoder have as many parameters as arithmetic says."""
    found = config(name)
    unet, autoencoder = (params_of(found, section) for section in ("unet_config", "first_stage_config"))
    with torch.device("meta"):
        ldm = build_ldm(found, FMRIEncoder())
    assert number(ldm.autoencoder) == count_autoencoder(autoencoder)
    assert number(ldm.unet) == count_unet(unet) + count_time_condition(unet)
    assert number(ldm.conditioner.dim_mapper) == linear(1024, unet["context_dim"])
    assert tuple(round(n / 1e6, 1) for n in (count_unet(unet), count_autoencoder(autoencoder))) == SIZES[name]


def test_latents_and_schedules_are_those_of_the_files():
    """Text: KL, 4 x 32 x 32, scaled, squared error. Layout: VQ, 3 x 64 x 64, unscaled, absolute error."""
    with torch.device("meta"):
        text, layout = (build_ldm(config(name), FMRIEncoder()) for name in NAMES)
    assert isinstance(text.autoencoder, KLAutoencoder) and isinstance(layout.autoencoder, VQAutoencoder)
    assert (text.latent_shape, text.autoencoder.scale_factor, text.loss_type) == ((4, 32, 32), 0.18215, "l2")
    assert (layout.latent_shape, layout.autoencoder.scale_factor, layout.loss_type) == ((3, 64, 64), 1.0, "l1")
    assert text.conditioner.channel_mapper[-1].out_channels == layout.conditioner.channel_mapper[-1].out_channels == 77
    ends = [build_schedule(config(name)).betas[[0, -1]] for name in NAMES]
    torch.testing.assert_close(torch.stack(ends), torch.tensor([[0.00085, 0.012], [0.0015, 0.0205]]))


@pytest.mark.parametrize("name", NAMES)
def test_head_says_what_it_is(name):
    """What, weights, command, cost and expected number, before the settings."""
    head = [line for line in (FOLDER / f"{name}.yaml").read_text().splitlines() if line.startswith("#")]
    for word in ("Weights:", "Command:", f"ldm=pretrains/ldm/{name}/model.ckpt", "Cost:", "Expect:"):
        assert any(word in line for line in head)


def write_published(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """A model.ckpt as published (weights, moving average, condition) with its config.yaml; returns our weights."""
    torch.manual_seed(0)
    found = tiny(name)
    ldm = build_ldm(found, small_encoder(), use_time_condition=False)
    for parameter in ldm.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    kept = {key: value for key, value in ldm.state_dict().items() if not key.startswith("conditioner.")}
    average = {f"model_ema.diffusion_model{key.replace('.', '')}": value + 1 for key, value in kept.items()}
    condition = {
        "cond_stage_model.transformer.token_emb.weight": torch.ones(30, 16),
        "cond_stage_model.transformer.pos_emb.emb.weight": torch.ones(77, 16),
        "cond_stage_model.transformer.attn_layers.layers.0.1.to_q.weight": torch.ones(16, 16),
        "cond_stage_model.transformer.norm.bias": torch.ones(16),
    }
    state = {**export_ldm(kept, build_schedule(found)), **average, "model_ema.decay": torch.tensor(0.99), **condition}
    folder.mkdir()
    torch.save({"state_dict": state, "global_step": 1}, folder / "model.ckpt")
    (folder / "config.yaml").write_text(yaml.safe_dump(found))
    return kept


@pytest.mark.parametrize("name", NAMES)
def test_published_weights_load(tmp_path, name):
    """The weights themselves, not their moving average; what is left out is in the report, the rest is complete."""
    kept = write_published(tmp_path / name, name)
    ldm, report = build_label2img(tmp_path / name / "model.ckpt", small_encoder())
    state = ldm.state_dict()
    assert set(report.matched) == set(kept) and all(torch.equal(state[key], value) for key, value in kept.items())
    assert {key.split(".")[0] for key in report.missing} == {"conditioner", "unet"} and not report.unexpected
    assert len(report.dropped) == len(kept) + 1 + 4
    assert (
        report.table().splitlines()[-1] == f"dropped {len(kept) + 5:>9}  model_ema {len(kept) + 1}, cond_stage_model 4"
    )


def test_weights_of_an_unknown_condition_are_refused(tmp_path):
    """A condition that is neither classes nor a transformer is named, not passed over."""
    write_published(tmp_path / "text", "text2img")
    content = load_torch(tmp_path / "text" / "model.ckpt")
    content["state_dict"]["cond_stage_model.clip.weight"] = torch.ones(2)
    path = tmp_path / "text" / "other.ckpt"
    torch.save(content, path)
    with pytest.raises(InputError, match=r"cond_stage_model\.clip\.weight"):
        build_label2img(path, small_encoder())


@pytest.mark.parametrize("name", NAMES)
def test_tunes_and_decodes(tmp_path, rng, name):
    """A loss with gradients for all that is tuned, and pictures of the autoencoder's size."""
    write_published(tmp_path / name, name)
    ldm, _ = build_label2img(tmp_path / name, small_encoder())
    latent = ldm.encode(torch.randn(2, 3, 16, 16))
    context = ldm.conditioner(torch.randn(2, 1, 96))
    ldm.loss(latent, context, torch.tensor([3, 700]), torch.randn_like(latent)).backward()
    without = {key for key, p in ldm.trainable_parameters().items() if p.grad is None}
    assert without == {"conditioner.encoder.cls_token", "conditioner.encoder.mask_token"}
    fmri = rng.standard_normal((1, 96), dtype="float32")
    assert decode(ldm.eval(), fmri, [0], num_samples=2, num_steps=2).shape == (1, 2, 16, 16, 3)


def test_exported_decoder_has_its_own_noise_schedule(tmp_path):
    """Written as published, a tuned text-to-image LDM holds that model's schedule, not the label-to-image one."""
    found = tiny("text2img")
    flags = {"global_pool": False, "use_time_condition": True}
    settings = {"encoder": {"patch_size": 8}, **flags, "ldm_config": found}
    write_weights(tmp_path / "x.pth", Weights("ldm", build_ldm(found, small_encoder()).state_dict(), settings))
    betas = load_torch(tmp_path / "x.pth")["model_state_dict"]["betas"]
    assert torch.equal(betas, NoiseSchedule(linear_start=0.00085, linear_end=0.012).betas)


@pytest.mark.parametrize("option", ["scale_by_std", "bert_layers"])
def test_other_options_are_refused(option):
    """A scale computed from data, and an option nobody knows: one line names them."""
    found = tiny("text2img")
    found["model"]["params"][option] = True
    with pytest.raises(InputError, match=rf"model\.params\.{option}") as caught:
        build_ldm(found, small_encoder())
    assert "\n" not in str(caught.value)
