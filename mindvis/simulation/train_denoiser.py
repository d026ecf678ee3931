"""Training of a small label-to-image latent diffusion model, and its checkpoint in the published format.

Rombach et al. 2022 (arXiv 2112.10752), section 3.3 and appendix E.1: class-conditional denoising in latent space, the
class entering by cross-attention as one learned token.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn

from mindvis.dc_ldm import LatentDiffusion, sample_ddim
from mindvis.dc_ldm.attention import TransformerBlock
from mindvis.simulation.train_image_models import Fit, minimise

PREFIXES = {"unet": "model.diffusion_model.", "autoencoder": "first_stage_model.", "conditioner": "cond_stage_model."}
EMA_DECAY = 0.998  # an average over about the last 500 steps
NUM_LEVELS = 20  # ranges of t whose typical loss is followed
LEVEL_DECAY = 0.9


def train_denoiser(ldm: LatentDiffusion, latents: Tensor, class_ids: Tensor, fit: Fit) -> None:
    """Train a `build_class_ldm` model in place on latents [n c h w] of classes [n]: UNet and class embedding.

    What the UNet learns to predict is the model's `parameterization`. They end as the moving average of their weights.
    """
    trained = nn.ModuleList([ldm.unet, ldm.conditioner])
    average = deepcopy(trained)
    generator = torch.Generator().manual_seed(fit.seed)
    levels = LevelLoss(ldm.schedule.num_timesteps)

    def loss_of(step: int, indices: Tensor) -> Tensor:
        t = torch.randint(ldm.schedule.num_timesteps, indices.shape, generator=generator)
        eps = torch.randn(latents[indices].shape, generator=generator)
        x_t = ldm.schedule.add_noise(latents[indices], eps, t)
        with torch.autocast("cpu", torch.bfloat16):
            found = ldm.predict(x_t, t, ldm.conditioner(class_ids[indices])).float()
        wanted = ldm.schedule.target(latents[indices], eps, t, ldm.parameterization)
        return levels((found - wanted).square().mean(dim=(1, 2, 3)), t)

    minimise(
        loss_of,
        trained.parameters(),
        num_items=len(latents),
        fit=fit,
        label="label-to-image",
        after_step=lambda step: move_average(average, trained, step),
    )
    trained.load_state_dict(average.state_dict())
    trained.eval()


@torch.no_grad()
def scale_context(ldm: LatentDiffusion, factor: float) -> None:
    """Multiply the class embedding by `factor` and divide keys and values by it: the same model, for Stage B's sake.

    Its conditioner begins with contexts far smaller than trained class embeddings, and would first have to grow.
    """
    ldm.conditioner.embedding.weight.mul_(factor)
    for head in (module for module in ldm.unet.modules() if isinstance(module, TransformerBlock)):
        head.attn2.to_k.weight.div_(factor)
        head.attn2.to_v.weight.div_(factor)


class LevelLoss:
    """Mean of losses [b] at steps t [b], each over the typical loss at such steps: all noise levels count alike.

    Noise is predicted far better at high t than at low t, and the first steps of sampling, which decide on layout and
    colour, need it to be: the plain mean hardly sees them. After Karras et al. 2024 (arXiv 2312.02696), section 2.1,
    with a running mean in place of their learned one.
    """

    def __init__(self, num_timesteps: int):
        self.width = -(-num_timesteps // NUM_LEVELS)
        self.typical = torch.full((NUM_LEVELS,), torch.nan)

    def __call__(self, losses: Tensor, t: Tensor) -> Tensor:
        """[b], [b] -> scalar."""
        level = t // self.width
        for one, value in zip(level.tolist(), losses.tolist(), strict=True):
            before = self.typical[one]
            self.typical[one] = value if before.isnan() else before.lerp(torch.tensor(value), 1 - LEVEL_DECAY)
        return (losses / self.typical[level].clamp(min=1e-5)).mean()


@torch.no_grad()
def move_average(average: nn.Module, current: nn.Module, step: int) -> None:
    """Move the average towards the current weights; early on by larger steps, as there is little to average yet."""
    decay = min(EMA_DECAY, step / (step + 10))
    for mean, weight in zip(average.parameters(), current.parameters(), strict=True):
        mean.lerp_(weight, 1 - decay)


@torch.no_grad()
def sample_classes(ldm: LatentDiffusion, class_ids: Tensor, *, seed: int, num_steps: int = 50) -> Tensor:
    """Images [b 3 h w] of classes [b] by DDIM, without guidance."""
    noise = torch.randn(len(class_ids), *ldm.latent_shape, generator=torch.Generator().manual_seed(seed))
    context = ldm.unet.prepare_context(ldm.conditioner(class_ids))
    latent = sample_ddim(
        lambda x, t: ldm.for_sampler(ldm.predict(x, t, context), x, t),
        noise,
        ldm.schedule.alphas_cumprod,
        num_steps,
        prediction=ldm.sampled_prediction,
    )
    return ldm.autoencoder.decode(latent)


def published_state(ldm: LatentDiffusion) -> dict[str, Tensor]:
    """Weights in half precision under the names of the published label-to-image checkpoint."""
    parts = {prefix: getattr(ldm, part).state_dict() for part, prefix in PREFIXES.items()}
    return {prefix + name: x.half().contiguous() for prefix, state in parts.items() for name, x in state.items()}
