"""From fMRI to pictures: every (stimulus, sample) pair is one row of a batch, whatever stimulus it belongs to.

The starting noise of sample k of stimulus s follows from (seed, s, k) alone, so a picture does not depend on the batch
size, the order, the other stimuli or the number of devices.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mindvis.common import devices
from mindvis.common.errors import InputError, check_setting
from mindvis.common.progress import Progress
from mindvis.data.images import to_uint8
from mindvis.dc_ldm import LatentDiffusion, PreparedContext, averaged_embeddings, averaged_timesteps, noise_for
from mindvis.dc_ldm.precision import channels_last, with_dtype
from mindvis.dc_ldm.samplers import SAMPLERS, EpsModel, nearest_start
from mindvis.training import on_cpu

Pair = tuple[int, int]  # (position among the stimuli, sample)
# settings that are arguments of `decode` of the same name, of whatever generates pictures
OPTIONS = ("num_samples", "sampler", "num_steps", "guidance", "batch_size", "seed", "compile", "matmul_precision")
DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16}  # of UNet and autoencoder


def decode(
    ldm: LatentDiffusion,
    fmri: np.ndarray,
    stimuli: Sequence[int],
    *,
    num_samples: int = 5,
    sampler: str = "plms",
    num_steps: int = 250,
    batch_size: int = 16,
    seed: int = 2022,
    precision: str = "32-true",
    guidance: float = 1.0,
    mean_fmri: np.ndarray | None = None,
    image_size: Sequence[int] | None = None,
    initial: Callable[[np.ndarray], np.ndarray] | None = None,
    strength: float = 1.0,
    compile: bool = False,
    matmul_precision: str = "high",
) -> np.ndarray:
    """Decode `fmri` [n v] to pictures uint8 [n k h w 3], k = `num_samples`, on the device of `ldm`.

    `stimuli`: identity of each row, from which its noise is drawn. Paper, section 3.4 and appendix on sampling.
    `guidance` above 1 leads away from what `mean_fmri` [v], the mean training row, is decoded to (see `_eps_model`);
    1 is the published way and needs no mean. `image_size` [height, width] is that of the pictures, unless given that of
    the autoencoder's training. `initial` gives flattened latents [n d] for `fmri`, from which sampling starts: noised
    to the sampler's step that is nearest to `strength` (0: not at all, 1: to noise alone, as without it). `compile`
    compiles UNet and decoder, in place where they need no copy; `matmul_precision` is of float32 on a GPU. Raises
    `InputError` for an unknown sampler, a negative guidance, a strength outside 0 to 1, a size that is no multiple of
    the autoencoder's factor, or a length of fMRI that the encoder does not expect.
    """
    _check_sampling(ldm, sampler, guidance, strength, mean_fmri)
    latent_shape = latent_shape_of(ldm, image_size)
    pairs = [(row, k) for row in range(len(fmri)) for k in range(num_samples)]
    ldm = make_ready(ldm, precision, compile=compile)
    images = []
    device = next(ldm.parameters()).device
    sample = _sampling(ldm, sampler, num_steps, strength)
    latents = None if strength == 1 or initial is None else _as_latents(ldm, initial(fmri), latent_shape)
    arithmetic = devices.matmul_precision(matmul_precision, device)
    with torch.no_grad(), arithmetic, Progress(total=len(pairs), unit="picture") as bar:
        times = time_embeddings(ldm, sampler, num_steps)
        mean = None if guidance == 1 or mean_fmri is None else context_of(ldm, mean_fmri[None])
        for batch, count in _batches(pairs, batch_size, one_shape=compile):
            eps_model = _eps_model(ldm, _context(ldm, fmri, batch), times, mean, guidance)
            noise = torch.cat([noise_for(seed, stimuli[row], k, latent_shape) for row, k in batch])
            begun = None if latents is None else latents[[row for row, _ in batch]].to(device, non_blocking=True)
            latent = sample(eps_model, noise.to(device, non_blocking=True), begun)
            images.append(to_uint8(ldm.autoencoder.decode(latent, quantize=True).float())[:count])
            bar.update(count)
    return np.concatenate(images).reshape(len(fmri), num_samples, *images[0].shape[1:])


def latent_shape_of(ldm: LatentDiffusion, image_size: Sequence[int] | None) -> tuple[int, int, int]:
    """Shape (c, h, w) of the latents of pictures of this height and width. Raises InputError where there are none."""
    channels, height, width = ldm.latent_shape
    if image_size is None:
        return channels, height, width
    factor = ldm.autoencoder.encoder.resolution // height
    if len(image_size) != 2 or any(side < factor or side % factor for side in image_size):
        found = f"setting image_size is {list(image_size)}"
        raise InputError(f"{found}; needed: a height and a width that are multiples of {factor}, as of the autoencoder")
    return channels, image_size[0] // factor, image_size[1] // factor


def _check_sampling(
    ldm: LatentDiffusion, sampler: str, guidance: float, strength: float, mean_fmri: np.ndarray | None
) -> None:
    check_setting("sampler", sampler, SAMPLERS)
    if sampler == "unipc_averaged" and ldm.schedule.flow:
        raise InputError(f"setting sampler is {sampler!r}; needed for an LDM of straight lines: euler, or another one")
    if guidance < 0:
        raise InputError(f"setting guidance is {guidance}; needed: 0 or more (1: as published)")
    if guidance != 1 and mean_fmri is None:
        raise InputError(f"setting guidance is {guidance}, but no mean fMRI is given; needed: mean_fmri, or guidance 1")
    if not 0 <= strength <= 1:
        raise InputError(f"setting strength is {strength}; needed: 0 to 1")


def _as_latents(ldm: LatentDiffusion, flat: np.ndarray, shape: Sequence[int]) -> Tensor:
    """Flattened latents [n d] as [n c h w] on the CPU, resized where pictures are of another size."""
    latents = torch.from_numpy(np.ascontiguousarray(flat, dtype=np.float32)).view(-1, *ldm.latent_shape)
    if tuple(shape) == tuple(ldm.latent_shape):
        return latents
    return F.interpolate(latents, size=tuple(shape[1:]), mode="bilinear", antialias=True)


def _sampling(ldm: LatentDiffusion, sampler: str, num_steps: int, strength: float) -> Callable[..., Tensor]:
    """Function of an `EpsModel`, noise and latents to begin with (both [b c h w]) or None: x_0 [b c h w]."""
    alphas_cumprod = ldm.schedule.alphas_cumprod.cpu()  # read by every call of a sampler: once from the device
    predicts = {} if ldm.sampled_prediction == "eps" else {"prediction": "v"}

    def sample(eps_model: EpsModel, noise: Tensor, begun: Tensor | None) -> Tensor:
        if begun is None:
            return SAMPLERS[sampler](eps_model, noise, alphas_cumprod, num_steps, **predicts)
        if strength == 0:
            return begun
        start = nearest_start(sampler, alphas_cumprod, num_steps, strength)
        t = torch.full((len(noise),), start, device=noise.device)
        x_t = ldm.schedule.add_noise(begun, noise, t)
        return SAMPLERS[sampler](eps_model, x_t, alphas_cumprod, num_steps, start=start, **predicts)

    return sample


def make_ready(ldm: LatentDiffusion, precision: str, *, compile: bool = False) -> LatentDiffusion:
    """The model for many evaluations: for "bf16-mixed" a copy with UNet and autoencoder in bfloat16.

    Raises InputError for another precision than that and "32-true".
    """
    if precision not in DTYPES:
        raise InputError(f"setting precision is {precision!r}; needed: {' or '.join(DTYPES)}")
    ready = with_dtype(ldm, DTYPES[precision])
    channels_last(ready)
    if compile:
        compile_for_sampling(ready)
    elif next(ready.parameters()).device.type == "cpu":
        on_cpu.attach(ready, mixed=precision == "bf16-mixed")
    return ready


def compile_for_sampling(ldm: LatentDiffusion, backend: str = "inductor") -> None:
    """Compile, in place, what runs for every step and every picture: whole, for one shape, on a GPU as CUDA graphs."""
    on_gpu = next(ldm.parameters()).device.type == "cuda"
    options: dict[str, Any] = {"mode": "reduce-overhead"} if on_gpu and backend == "inductor" else {}
    for network in (ldm.unet, ldm.autoencoder.decoder):
        network.compile(fullgraph=True, dynamic=False, backend=backend, **options)


def time_embeddings(ldm: LatentDiffusion, sampler: str, num_steps: int) -> Tensor | None:
    """The UNet's time embeddings [num_timesteps e] as a sampler wants them; None: as they are."""
    if sampler != "unipc_averaged":
        return None
    alphas_cumprod = ldm.schedule.alphas_cumprod
    return averaged_embeddings(ldm.unet, averaged_timesteps(alphas_cumprod, num_steps), len(alphas_cumprod))


def context_of(ldm: LatentDiffusion, fmri: np.ndarray) -> Tensor:
    """Contexts [n 77 c] of rows of fMRI [n v], in the type of the UNet of a model that `make_ready` has given."""
    unet = next(ldm.unet.parameters())
    rows = torch.from_numpy(np.ascontiguousarray(fmri, dtype=np.float32))[:, None].to(unet.device)  # [n 1 v]
    with torch.autocast(unet.device.type, torch.bfloat16, enabled=unet.dtype == torch.bfloat16):
        context = ldm.conditioner(rows)
    return context.to(unet.dtype)


def _batches(pairs: list[Pair], size: int, *, one_shape: bool) -> Iterator[tuple[list[Pair], int]]:
    """Batches and how many of their pairs count: with `one_shape` the last is filled up, for one compilation."""
    size = min(size, len(pairs))
    for start in range(0, len(pairs), size):
        batch = pairs[start : start + size]
        fill = [batch[-1]] * (size - len(batch)) if one_shape else []
        yield batch + fill, len(batch)


def _context(ldm: LatentDiffusion, fmri: np.ndarray, batch: list[Pair]) -> Tensor:
    """Context of each pair; the encoder sees every stimulus of the batch once."""
    rows = sorted({row for row, _ in batch})
    context = context_of(ldm, fmri[rows])  # [r 77 c]
    places = torch.tensor([rows.index(row) for row, _ in batch])  # [b]
    return context.index_select(0, places.to(context.device, non_blocking=True))


def _eps_model(
    ldm: LatentDiffusion, context: Tensor, times: Tensor | None, mean: Tensor | None, guidance: float
) -> EpsModel:
    """What the samplers take, from the UNet under `context` [b 77 c], guided away from `mean` [1 77 c] if it is given.

    eps_mean + guidance (eps - eps_mean): classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598, equation
    6), with the mean fMRI in the place of no condition, which Stage B never sees. Both are one batch. Predictions of v
    are guided alike, as both follow from x_t and eps by the same linear map.
    """
    dtype = context.dtype

    def predict(x_t: Tensor, t: Tensor, prepared: PreparedContext) -> Tensor:
        output = ldm.predict(x_t.to(dtype), t, prepared)
        return output.to(torch.float32, copy=True)  # a CUDA graph writes its next output over this one

    if mean is None:
        prepared = ldm.unet.prepare_context(context, times)
        return lambda x_t, t: ldm.for_sampler(predict(x_t, t, prepared), x_t, t)
    both = ldm.unet.prepare_context(torch.cat([mean.expand_as(context), context]), times)

    def guided(x_t: Tensor, t: Tensor) -> Tensor:
        without, under = predict(x_t.repeat(2, 1, 1, 1), t.repeat(2), both).chunk(2)
        return ldm.for_sampler(torch.lerp(without, under, guidance), x_t, t)

    return guided
