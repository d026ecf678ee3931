"""Stages without training, for tests of what runs them."""

import json

from mindvis.chain.plan import TRAININGS
from mindvis.evaluation.report import SCHEMA

FILES = {"score_mbm": "hidden_voxels.json", "generate": "decoded.npz", "evaluate": "report.json"}
FILES |= {"baseline_ridge": "decoded.npz"}
FILES |= {"demo_summary": "summary.txt"}


class FakeStages:
    """Takes the place of the processes: writes what a stage leaves, as a function of its settings.

    Steps named in `broken` fail; `results(step)` is what a score or a report holds.
    """

    def __init__(self, broken=(), results=lambda step: {"figures": []}):
        self.results = results
        self.broken, self.started, self.devices = set(broken), [], {}

    def __call__(self, step, settings, log, device):
        self.started.append(step.name)
        self.devices[step.subject] = device
        if step.name in self.broken:
            log.open("a").write("error: it is broken\n")
            return 2
        step.folder.mkdir(parents=True, exist_ok=True)
        if step.stage in TRAININGS:
            (step.folder / "checkpoints").mkdir(exist_ok=True)
            (step.folder / "checkpoints" / "last.ckpt").write_text(json.dumps(step.settings, sort_keys=True))
            (step.folder / "manifest.json").write_text('{"finished": true}')
        elif step.stage == "simulate":
            (step.folder / "HCP" / "npz").mkdir(parents=True, exist_ok=True)
            (step.folder / "HCP" / "npz" / "data").write_text(str(step.settings["seed"]))
        else:
            content = {"schema": SCHEMA} | self.results(step) | {"of": step.settings}
            (step.folder / FILES[step.stage]).write_text(json.dumps(content))
        return 0
