"""What watches a training: no-number losses, speed."""

import csv

import pytest
import torch
from toy import ToyModule, train

from mindvis.common.errors import InputError


class Exploding(ToyModule):
    """Its loss is no number any more from some step on."""

    def __init__(self, value: float, step: int):
        super().__init__()
        self.value, self.step = value, step

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * self.value if self.global_step == self.step else loss


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_before_the_weights_and_names_what_helps(tmp_path, value):
    module = Exploding(value, step=2)
    with pytest.raises(InputError) as caught:
        train(tmp_path, module=module)
    message = str(caught.value)
    assert f"loss is {value} at step 3 (epoch 0), learning rate 0.0417" in message
    assert f"last good checkpoint: {tmp_path / 'checkpoints' / 'last.ckpt'}" in message
    assert all(torch.isfinite(p).all() for p in module.parameters())


def test_before_the_first_checkpoint_the_message_says_so(tmp_path):
    with pytest.raises(InputError, match="last good checkpoint: none yet"):
        train(tmp_path, module=Exploding(float("nan"), step=0))


def test_speed_goes_to_its_own_file_because_it_differs_between_runs(tmp_path):
    train(tmp_path, max_epochs=1, log_every_steps=2)
    with (tmp_path / "speed.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["2", "4", "6"]
    assert float(rows[-1]["hours_left"]) == 0.0 < float(rows[0]["hours_left"])
    assert all(float(row["samples_per_second"]) > 0 and float(row["peak_memory_gb"]) > 0.05 for row in rows)
    assert "samples_per_second" not in (tmp_path / "metrics.csv").read_text()
