"""Stage A: a masked autoencoder over patches of voxels, and its encoder alone.

Chen et al., "Seeing Beyond the Brain" (CVPR 2023), section 3.2. The embedding of a patch is far wider than the patch
(1024 features for 16 voxels), the sparse coding of the name. Parameter names are those of the published weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mindvis.common.errors import InputError
from mindvis.common.loading import LoadReport, load_state
from mindvis.sc_mbm.blocks import PatchEmbedding, initialise, resize_positions, sincos_positions, transformer, unshuffle
from mindvis.sc_mbm.masking import choose_visible
from mindvis.sc_mbm.pretext import ImageFeatureDecoder, image_error


@dataclass(frozen=True)
class MBMOutput:
    """Loss (scalar), reconstruction of every patch [b l p], mask [b l] with 1 = hidden.

    The loss is the mean over hidden patches; with the image-feature pretext `image_loss`, that of the features
    [r c h w] in `image_reconstruction`, is added with its weight.
    """

    loss: Tensor
    reconstruction: Tensor
    mask: Tensor
    image_loss: Tensor | None = None
    image_reconstruction: Tensor | None = None


class BrainEncoder(nn.Module):
    """What the autoencoder and the encoder of Stage B share: patch embedding, class token, positions, blocks, norm.

    `use_checkpoint` may be switched at any time: it trades a second forward pass of the blocks for memory.
    """

    def __init__(
        self, num_voxels: int, patch_size: int, embed_dim: int, *, depth: int, num_heads: int, mlp_ratio: float
    ):
        super().__init__()
        if num_voxels < 1 or patch_size < 1 or num_voxels % patch_size:
            raise InputError(
                f"num_voxels is {num_voxels}: a positive multiple of patch_size = {patch_size} is needed, pad the fMRI"
            )
        self.num_voxels, self.patch_size, self.num_patches = num_voxels, patch_size, num_voxels // patch_size
        self.use_checkpoint = False
        self.patch_embed = PatchEmbedding(patch_size, embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.blocks = transformer(embed_dim, depth=depth, num_heads=num_heads, mlp_ratio=mlp_ratio)
        self.pos_embed = nn.Parameter(sincos_positions(self.num_patches, embed_dim))
        self.norm = nn.LayerNorm(embed_dim)

    def patchify(self, fmri: Tensor) -> Tensor:
        """The voxels of each patch: [b 1 (l p)] -> [b l p]. Raises InputError for fmri of another shape."""
        if fmri.ndim != 3 or fmri.shape[1:] != (1, self.num_voxels):
            raise InputError(f"fmri has shape {list(fmri.shape)}: the model takes [batch, 1, {self.num_voxels}]")
        return rearrange(fmri, "b 1 (l p) -> b l p", p=self.patch_size)

    def run(self, blocks: nn.ModuleList, tokens: Tensor) -> Tensor:
        """Tokens [b n d] through blocks, one after another."""
        recompute = self.use_checkpoint and torch.is_grad_enabled()
        for block in blocks:
            tokens = checkpoint(block, tokens, use_reentrant=False) if recompute else block(tokens)
        return tokens


class MaskedBrainModel(BrainEncoder):
    """Masked autoencoder of Stage A; the defaults are the published size. Its positions are not trained.

    `image_features` (c, h, w) adds the second pretext of the ablation table, weighted by `image_weight`: features of
    the picture that was seen, from the latent of what is visible.
    """

    def __init__(
        self,
        *,
        num_voxels: int = 4656,
        patch_size: int = 16,
        embed_dim: int = 1024,
        depth: int = 24,
        num_heads: int = 16,
        mlp_ratio: float = 1.0,
        decoder_embed_dim: int = 512,
        decoder_depth: int = 8,
        decoder_num_heads: int = 16,
        image_features: Sequence[int] | None = None,
        image_weight: float = 0.5,
    ):
        super().__init__(num_voxels, patch_size, embed_dim, depth=depth, num_heads=num_heads, mlp_ratio=mlp_ratio)
        self.image_weight = image_weight
        self.image_decoder = None
        self.decoder_embed = nn.Linear(embed_dim, decoder_embed_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_embed_dim))
        self.decoder_blocks = transformer(
            decoder_embed_dim, depth=decoder_depth, num_heads=decoder_num_heads, mlp_ratio=mlp_ratio
        )
        self.decoder_pos_embed = nn.Parameter(sincos_positions(self.num_patches, decoder_embed_dim))
        self.decoder_norm = nn.LayerNorm(decoder_embed_dim)
        self.decoder_pred = nn.Linear(decoder_embed_dim, self.patch_size)
        self.pos_embed.requires_grad_(False)
        self.decoder_pos_embed.requires_grad_(False)
        if image_features is not None:
            self.image_decoder = ImageFeatureDecoder(
                embed_dim,
                decoder_embed_dim,
                self.num_patches,
                num_heads=decoder_num_heads,
                mlp_ratio=mlp_ratio,
                features=image_features,
            )
        initialise(self)

    def forward(
        self,
        fmri: Tensor,
        mask_ratio: float = 0.75,
        noise: Tensor | None = None,
        *,
        image_features: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> MBMOutput:
        """Hides patches of fmri [b 1 v] and predicts them.

        noise [b l] ranks the patches of each sample: those of smallest noise stay visible. None draws it from torch's
        generator of the device. `image_features` [r c h w] are those of the pictures seen in the samples `rows` (long
        [r]; None: all of them). Raises InputError for fmri or noise of another shape.
        """
        patches = self.patchify(fmri)  # [b l p]
        noise = self.check_noise(noise, patches)  # [b l]
        visible, mask = choose_visible(noise, mask_ratio)  # [b k], [b l]
        latent = self.encode(patches, visible)  # [b 1+k d]
        reconstruction = self.decode(latent, visible)  # [b l p]
        loss = masked_error(reconstruction, patches, mask)
        if image_features is None:
            return MBMOutput(loss, reconstruction, mask)
        images = self.decode_images(latent, visible, rows)  # [r c h w]
        image_loss = image_error(images, image_features)
        return MBMOutput(loss + self.image_weight * image_loss, reconstruction, mask, image_loss, images)

    def unpatchify(self, patches: Tensor) -> Tensor:
        """Patches back in the order of the voxels: [b l p] -> [b v]."""
        return rearrange(patches, "b l p -> b (l p)")

    def check_noise(self, noise: Tensor | None, patches: Tensor) -> Tensor:
        if noise is None:
            return torch.rand(patches.shape[:2], device=patches.device)
        if noise.shape != patches.shape[:2]:
            raise InputError(f"noise has shape {list(noise.shape)}: one number a patch, {list(patches.shape[:2])}")
        return noise

    def encode(self, patches: Tensor, visible: Tensor) -> Tensor:
        """Latent of the class token and of the visible patches: [b l p], [b k] -> [b 1+k d]."""
        # only what is visible is gathered and embedded: a quarter of the patches
        shown = patches.gather(1, visible[..., None].expand(-1, -1, self.patch_size))  # [b k p]
        tokens = self.patch_embed(shown) + self.pos_embed[0, 1:][visible]  # [b k d]
        class_token = (self.cls_token + self.pos_embed[:, :1]).expand(len(tokens), -1, -1)
        tokens = torch.cat([class_token, tokens], dim=1)  # [b 1+k d]
        return self.norm(self.run(self.blocks, tokens))

    def decode(self, latent: Tensor, visible: Tensor) -> Tensor:
        """Voxels of every patch from the latent of the visible ones: [b 1+k d], [b k] -> [b l p]."""
        shown = self.decoder_embed(latent)  # [b 1+k d']
        tokens = unshuffle(shown, visible, self.mask_token, self.num_patches) + self.decoder_pos_embed  # [b 1+l d']
        tokens = self.decoder_norm(self.run(self.decoder_blocks, tokens))
        return self.decoder_pred(tokens[:, 1:])

    def decode_images(self, latent: Tensor, visible: Tensor, rows: Tensor | None = None) -> Tensor:
        """Features [r c h w] of the pictures seen in some samples: latent [b 1+k d], visible [b k], rows [r].

        Raises InputError for a model without this pretext.
        """
        if self.image_decoder is None:
            raise InputError("the masked brain model has no image features to decode: image_features is not set")
        if rows is not None:
            latent, visible = latent[rows], visible[rows]
        return self.image_decoder(latent, visible)


class FMRIEncoder(BrainEncoder):
    """The encoder of Stage A without masking and without the class token, for Stage B.

    `cls_token`, `mask_token` and the class row of the positions take no part: published weights name them. All
    parameters are trainable, the positions too, as in the published Stage B.
    """

    def __init__(
        self,
        *,
        num_voxels: int = 4656,
        patch_size: int = 16,
        embed_dim: int = 1024,
        depth: int = 24,
        num_heads: int = 16,
        mlp_ratio: float = 1.0,
        global_pool: bool = False,
    ):
        super().__init__(num_voxels, patch_size, embed_dim, depth=depth, num_heads=num_heads, mlp_ratio=mlp_ratio)
        self.global_pool = global_pool
        self.mask_token = nn.Parameter(torch.zeros_like(self.cls_token))
        initialise(self)

    def forward(self, fmri: Tensor) -> Tensor:
        """Tokens of fmri [b 1 v]: [b l d], or their mean [b 1 d] with `global_pool`."""
        tokens = self.patch_embed(self.patchify(fmri)) + self.pos_embed[:, 1:]  # [b l d]
        tokens = self.run(self.blocks, tokens)
        if self.global_pool:
            tokens = tokens.mean(dim=1, keepdim=True)  # [b 1 d]
        return self.norm(tokens)

    def unused_parameters(self) -> list[nn.Parameter]:
        """The tokens that take no part."""
        return [self.cls_token, self.mask_token]

    def load_pretrained(self, mbm_state_dict: dict[str, Tensor]) -> LoadReport:
        """Takes over the encoder's part of a Stage A model of any length; positions are resized.

        Raises InputError when a weight is missing, has another shape or belongs to a block this encoder lacks.
        """
        # the mask token is the decoder's in Stage A and takes no part in the encoder
        parts = ("decoder_", "image_decoder.")
        of_decoder = [name for name in mbm_state_dict if name == "mask_token" or name.startswith(parts)]
        state = {name: tensor for name, tensor in mbm_state_dict.items() if name not in of_decoder}
        source = "Stage A weights"
        report = load_state(self, state, expected_missing=["mask_token"], resize=resize_positions, source=source)
        return replace(report, dropped=of_decoder)


def masked_error(reconstruction: Tensor, patches: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error of the hidden patches: [b l p], [b l p], [b l] -> scalar; 0 where nothing is hidden."""
    error = (reconstruction.float() - patches.float()).square().mean(dim=-1)  # [b l]
    return (error * mask).sum() / mask.sum().clamp(min=1)
