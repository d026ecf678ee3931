"""Compilation: every network is one graph, without a break; the last part of the pictures has the shape of others."""

import ldm_cases
import numpy as np
import pytest
import torch

from mindvis.dc_ldm import LDMModule
from mindvis.decoding import decode as decoding
from mindvis.sc_mbm import MaskedBrainModel
from mindvis.training.engine import compile_networks

OPTIONS = {"num_samples": 1, "sampler": "unipc", "num_steps": 3, "seed": 5, "batch_size": 2}


@pytest.fixture
def case(golden):
    return golden("dc_ldm")


@pytest.fixture
def counted(monkeypatch):
    """A backend that runs graphs as they are, and how many there were."""
    torch._dynamo.reset()
    graphs = []

    def run_as_is(module, inputs):
        graphs.append(module)
        return module.forward

    yield run_as_is, graphs
    torch._dynamo.reset()


def test_stage_a_is_one_graph(counted):
    """Forward and, behind it, backward; the loss and gradients are those of the network as it is."""
    backend, graphs = counted
    torch.manual_seed(0)
    sizes = {"embed_dim": 16, "depth": 2, "num_heads": 2, "decoder_embed_dim": 8, "decoder_depth": 1}
    network = MaskedBrainModel(num_voxels=64, patch_size=4, decoder_num_heads=2, **sizes)
    fmri, noise = torch.randn(3, 1, 64), torch.rand(3, 16)
    expected = network(fmri, 0.75, noise).loss
    compile_networks(torch.nn.ModuleList([network]), backend=backend)
    loss = network(fmri, 0.75, noise).loss
    loss.backward()
    torch.testing.assert_close(loss, expected)
    assert len(graphs) == 1 and network.patch_embed.proj.weight.grad is not None


def test_stage_b_is_a_graph_a_network(counted, case):
    """Conditioner, UNet, and encoder and projection of images that are cropped."""
    backend, graphs = counted
    module = LDMModule(ldm_cases.build(case))
    fmri, image = case.tensor("in/fmri"), ldm_cases.image(case)
    batch = {"fmri": fmri, "image": image, "key": torch.tensor([[0, 0, i] for i in range(len(fmri))])}
    expected = module.loss(batch)
    compile_networks(module, backend=backend)
    loss = module.loss(batch)
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    assert len(graphs) == 4


def test_pictures_are_made_by_two_graphs_of_one_shape(counted, case, monkeypatch, rng):
    """Three pictures in parts of two: the last part is filled up, and compiled for no second time."""
    backend, graphs = counted
    ldm = ldm_cases.build(case)
    fmri = rng.standard_normal((3, ldm.conditioner.encoder.num_voxels), dtype="float32")
    options = OPTIONS | {"guidance": 2.0, "mean_fmri": fmri.mean(axis=0)}
    expected = decoding.decode(ldm_cases.build(case), fmri, range(3), **options)
    compile_ = decoding.compile_for_sampling
    monkeypatch.setattr(decoding, "compile_for_sampling", lambda ldm: compile_(ldm, backend=backend))
    found = decoding.decode(ldm, fmri, range(3), compile=True, **options)
    assert len(graphs) == 2
    assert np.abs(found.astype(int) - expected).max() <= 1
