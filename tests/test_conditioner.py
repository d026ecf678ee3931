"""Conditioner: agreement with the published one, pooling, classes."""

import ldm_cases
import pytest
import torch

from mindvis.common.errors import InputError
from mindvis.dc_ldm import ClassEmbedder, FMRIConditioner
from mindvis.sc_mbm import FMRIEncoder


def encoder(global_pool: bool = False) -> FMRIEncoder:
    return FMRIEncoder(num_voxels=96, patch_size=8, embed_dim=32, depth=1, num_heads=4, global_pool=global_pool)


@pytest.mark.parametrize("name", ldm_cases.CASES)
@torch.no_grad()
def test_context_agrees_with_the_published_conditioner(golden, name):
    """Context within 2e-6, with tokens and pooled."""
    case = golden(name)
    context = ldm_cases.build(case).conditioner(case.tensor("in/fmri"))
    torch.testing.assert_close(context, case.tensor("out/context"), atol=2e-6, rtol=0)


def test_context_is_linear_in_the_tokens():
    """No non-linearity after the encoder: the map of tokens is affine."""
    torch.manual_seed(0)
    conditioner = FMRIConditioner(encoder(), context_dim=24)
    conditioner.encoder = torch.nn.Identity()
    a, b = torch.randn(2, 1, 12, 32)
    middle = conditioner((a + b) / 2)
    assert middle.shape == (1, 77, 24)
    torch.testing.assert_close(middle, (conditioner(a) + conditioner(b)) / 2, atol=1e-5, rtol=0)


def test_pooling_must_be_that_of_the_encoder():
    """The error names the setting."""
    with pytest.raises(InputError, match="global_pool"):
        FMRIConditioner(encoder(global_pool=True), context_dim=24, global_pool=False)


def test_classes_become_contexts_of_one_token():
    """The published name of the only weight is embedding.weight."""
    embedder = ClassEmbedder(11, 24)
    assert list(embedder.state_dict()) == ["embedding.weight"]
    context = embedder(torch.tensor([3, 7]))
    assert context.shape == (2, 1, 24)
    assert torch.equal(context[1, 0], embedder.embedding.weight[7])
