"""Simulate an experiment: drawn pictures, the responses of simulated visual cortices, and resting-state runs.

Example:
  python scripts/simulate.py out=data/simulated protocol=god seed=1

Writes Kamitani/npz and HCP/npz below `out`, in the published layouts, so that every other script reads them.
protocol=god adds test pictures of classes that are never trained on, and Imagery/sbj_1.npz: own data whose test trials
are imagined.
"""

from collections.abc import Sequence
from dataclasses import asdict

from mindvis.config.command_line import entry_point, read_settings
from mindvis.config.tools import SimulateConfig


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    config = read_settings(SimulateConfig, __doc__, argv)
    # imported once the settings are right: torch takes seconds
    from mindvis.simulation.experiment import Experiment, choose_protocol
    from mindvis.simulation.simulate import simulate

    settings = {name: value for name, value in asdict(config).items() if name in Experiment.__dataclass_fields__}
    names = ("snr", "train_repeats", "test_repeats", "unseen_classes", "imagery_repeats")
    protocol = choose_protocol(config.protocol, **{name: getattr(config, name) for name in names})
    experiment = Experiment(**settings | {"protocol": protocol})
    simulate(config.out, experiment)
    repeats = f"{protocol.test_repeats} test repeats"
    unseen = f", {protocol.unseen_classes} unseen classes" if protocol.unseen_classes else ""
    print(f"simulated: {config.out}, single-trial SNR {protocol.snr:.3g}, {repeats}{unseen}")


if __name__ == "__main__":
    raise SystemExit(main())
