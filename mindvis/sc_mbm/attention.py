"""Which way attention is computed: by the fused kernel of the device, or as two products and a softmax between them."""

import torch
from torch import Tensor

LARGE_PRODUCT = 4096**2  # queries x keys whose weights are better not held in memory


def fused_pays(x: Tensor, num_queries: int, num_keys: int) -> bool:
    """Whether the fused kernel is the faster one for the device of `x` and the type attention is computed in.

    In bfloat16 on the CPU it is not: its backward pass takes two to four times as long.
    """
    if x.device.type != "cpu":
        return True
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    return dtype == torch.float32 or num_queries * num_keys > LARGE_PRODUCT
