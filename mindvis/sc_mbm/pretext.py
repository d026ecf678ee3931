"""The image-feature pretext of Stage A (an ablation of the paper): its decoder, its loss and its targets.

Targets are ResNet-50's `layer2` of the pictures that rows were recorded under. They are computed once and kept in a
mapped file of half precision: the network is frozen, and a picture is shown in every epoch.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from mindvis.common.errors import InputError
from mindvis.common.files import write_npy
from mindvis.common.launched import global_rank
from mindvis.common.progress import Progress
from mindvis.sc_mbm.blocks import sincos_positions, transformer, unshuffle

DEPTH = 2  # blocks of the decoder
FEATURE_SHAPE = (512, 28, 28)  # of layer2 at 224 pixels
RESNET_FILE = "resnet50-11ad3fa6.pth"  # ResNet50_Weights.DEFAULT
NEEDED = "needed: torchvision's ResNet-50 weights, pretext.resnet=FILE, or pretext.weight=0"


class ImageFeatureDecoder(nn.Module):
    """Features of the picture that was seen, from the latent of the visible patches: a small decoder of its own.

    Its last layers mix the patches into channels, and the width of a token into places.
    """

    def __init__(
        self,
        embed_dim: int,
        decoder_embed_dim: int,
        num_patches: int,
        *,
        num_heads: int,
        mlp_ratio: float,
        features: Sequence[int],
    ):
        super().__init__()
        channels, self.height, self.width = features
        self.num_patches = num_patches
        self.decoder_embed = nn.Linear(embed_dim, decoder_embed_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_embed_dim))
        self.decoder_blocks = transformer(decoder_embed_dim, depth=DEPTH, num_heads=num_heads, mlp_ratio=mlp_ratio)
        self.decoder_pos_embed = nn.Parameter(sincos_positions(num_patches, decoder_embed_dim), requires_grad=False)
        self.decoder_norm = nn.LayerNorm(decoder_embed_dim)
        self.decoder_pred = nn.Sequential(
            nn.Conv1d(num_patches, channels, 1), nn.Linear(decoder_embed_dim, self.height * self.width)
        )
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, latent: Tensor, visible: Tensor) -> Tensor:
        """[b 1+k d], [b k] -> [b c h w]."""
        shown = self.decoder_embed(latent)  # [b 1+k d']
        tokens = unshuffle(shown, visible, self.mask_token, self.num_patches) + self.decoder_pos_embed  # [b 1+l d']
        for block in self.decoder_blocks:
            tokens = block(tokens)
        places = self.decoder_pred(self.decoder_norm(tokens)[:, 1:])  # [b c hw]
        return rearrange(places, "b c (h w) -> b c h w", h=self.height)


def image_error(decoded: Tensor, features: Tensor) -> Tensor:
    """Mean squared difference of image features [r c h w] after tanh, which bounds the few large ones: scalar."""
    return (features.float().tanh() - decoded.float().tanh()).square().mean()


def find_resnet(path: str | None) -> Path:
    """The weights file, or the one in the torch cache. Raises InputError where it is not there."""
    file = Path(path) if path else Path(torch.hub.get_dir()) / "checkpoints" / RESNET_FILE
    if not file.is_file():
        raise InputError(f"setting pretext.weight is above 0, but there is no {file}; {NEEDED}")
    return file


def load_resnet(path: Path) -> nn.Module:
    """ResNet-50 up to `layer2`, frozen: pictures [b 3 224 224] -> [b 512 28 28]. Raises InputError for another file."""
    from torchvision.models import resnet50

    network = resnet50(weights=None)
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch raises unrelated classes for what is no file of its own, or of another network
        raise InputError(f"{path}: no weights of ResNet-50 ({' '.join(str(error).split())[:120]}); {NEEDED}") from error
    stem = [network.conv1, network.bn1, network.relu, network.maxpool]
    return nn.Sequential(*stem, network.layer1, network.layer2).eval().requires_grad_(False)


def kept_features(pictures: np.ndarray, resnet: Path, folder: Path, *, batch_size: int = 16) -> np.ndarray:
    """Features float16 [m 512 28 28] of pictures uint8 [m h w 3], mapped from `folder`, where they are made once.

    The file is named by a hash of the pictures and of the weights. Of several processes each makes what it does not
    find, and the first one alone writes. Raises InputError for unfit weights.
    """
    path = folder / f"image-features-{_fingerprint(pictures, resnet)}.npy"
    if not path.is_file():
        features = np.concatenate(list(feature_batches(load_resnet(resnet), pictures, batch_size)))
        if global_rank() > 0:
            return features
        write_npy(path, features)
    return np.load(path, mmap_mode="r")


@torch.no_grad()
def feature_batches(network: nn.Module, pictures: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Features float16 [b 512 28 28] of pictures uint8 [m h w 3], on the GPU of this process where there is one."""
    from torchvision.models import ResNet50_Weights

    gpus = torch.cuda.device_count()
    device = torch.device("cuda", global_rank() % gpus) if gpus else torch.device("cpu")
    network, prepare = network.to(device), ResNet50_Weights.DEFAULT.transforms()
    for start in Progress(range(0, len(pictures), batch_size), desc="image features", unit="batch", leave=False):
        batch = torch.from_numpy(np.array(pictures[start : start + batch_size])).permute(0, 3, 1, 2)  # [b 3 h w]
        features: Tensor = network(prepare(batch.to(device)))
        yield features.half().cpu().numpy()


def _fingerprint(pictures: np.ndarray, resnet: Path) -> str:
    status = resnet.stat()
    digest = hashlib.sha256(f"{pictures.shape} {status.st_size} {status.st_mtime_ns}".encode())
    for start in range(0, len(pictures), 256):
        digest.update(np.ascontiguousarray(pictures[start : start + 256]).tobytes())
    return digest.hexdigest()[:16]
