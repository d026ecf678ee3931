"""The published sizes on the CPU: both stages build, train one step and sample one step in under 20 GB."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
LIMIT_GB = 20.0

STAGE_A = """
network = MaskedBrainModel()
optimizer = adamw(decay_groups(network, 0.05), lr=2.5e-4, betas=(0.9, 0.95))
loss = network(torch.randn(8, 1, 4656)).loss
loss.backward()
optimizer.step()
report(loss=loss.item())
"""

STAGE_B = """
ldm = build_ldm(full_size_config(), FMRIEncoder())
optimizer = adamw([{"params": list(ldm.trainable_parameters().values())}], lr=5.3e-5, betas=(0.9, 0.999))
latent = ldm.encode(torch.rand(1, 3, 256, 256) * 2 - 1)
context = ldm.conditioner(torch.randn(1, 1, 4656))
loss = ldm.loss(latent, context, torch.tensor([500]), torch.randn_like(latent))
loss.backward()
optimizer.step()
report(loss=loss.item(), latent=list(latent.shape))
"""

SAMPLING = """
ldm = build_ldm(full_size_config(), FMRIEncoder()).eval()
with torch.no_grad():
    prepared = ldm.unet.prepare_context(ldm.conditioner(torch.randn(5, 1, 4656)))
    noise = torch.randn(5, *ldm.latent_shape)
    x0 = sample_ddim(lambda x, t: ldm.unet(x, t, prepared), noise, ldm.schedule.alphas_cumprod, 1)
    image = ldm.autoencoder.decode(x0[:1])
report(loss=x0.square().mean().item(), image=list(image.shape))
"""

PREAMBLE = """
import json, sys
import torch
sys.path.insert(0, {tests!r})
from ldm_cases import full_size_config
from mindvis.dc_ldm import build_ldm, sample_ddim
from mindvis.sc_mbm import FMRIEncoder, MaskedBrainModel
from mindvis.training.optim import adamw, decay_groups

def report(**facts):
    # VmHWM is this process's own; ru_maxrss would be inherited from the parent
    peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(json.dumps(facts | {{"peak_gb": peak / 1e6}}))
"""


def run(body: str) -> dict:
    """What a process of its own reports after running `body`."""
    code = PREAMBLE.format(tests=str(TESTS)) + body
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc, which Linux has")
@pytest.mark.parametrize("body", [STAGE_A, STAGE_B, SAMPLING], ids=["stage_a", "stage_b", "sampling"])
def test_published_size_on_the_cpu(body):
    """One step of each, with a finite result."""
    facts = run(body)
    print(facts)
    assert facts["peak_gb"] < LIMIT_GB
    assert 0 < facts["loss"] < float("inf")
    assert facts.get("latent", [1, 3, 64, 64]) == [1, 3, 64, 64]
    assert facts.get("image", [1, 3, 256, 256]) == [1, 3, 256, 256]
