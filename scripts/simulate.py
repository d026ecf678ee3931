"""Simulate an experiment: drawn pictures, the responses of simulated visual cortices, and resting-state runs.

Example:
  python scripts/simulate.py out=data/simulated protocol=god seed=1

Writes Kamitani/npz and HCP/npz below `out`, in the published layouts, so that every other script reads them.
"""

from collections.abc import Sequence
from dataclasses import asdict

from mindvis.config.command_line import entry_point, read_settings
from mindvis.config.schemas import SimulateConfig


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    config = read_settings(SimulateConfig, __doc__, argv)
    # imported once the settings are right: torch takes seconds
    from mindvis.simulation.experiment import Experiment, choose_protocol
    from mindvis.simulation.simulate import simulate

    settings = {name: value for name, value in asdict(config).items() if name in Experiment.__dataclass_fields__}
    protocol = choose_protocol(config.protocol, config.snr, config.train_repeats, config.test_repeats)
    experiment = Experiment(**settings | {"protocol": protocol})
    simulate(config.out, experiment)
    print(f"simulated: {config.out}, single-trial SNR {protocol.snr:.3g}, {protocol.test_repeats} test repeats")


if __name__ == "__main__":
    raise SystemExit(main())
