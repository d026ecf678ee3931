"""How the tests run the commands of README.md and docs: as they are, or made small by settings laid over them.

`RECIPES` says for each command what is added to it. A command without a recipe is an error, so that none stays untried.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import betas_files
import bold5000_files
import god_files
import hcp_files
import nsd_files
import numpy as np
import pytest
import tiny_stages
from command_lines import ROOT, parse_only, words
from script_runner import Outcome, run

from mindvis.chain.plan import Step
from mindvis.chain.processes import Processes

# In the order in which their commands run: a later page may use what the commands of an earlier one made.
PAGES = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("data", "runs", "results", "weights"))]
PAGES += sorted(set((ROOT / "docs").glob("*.md")) - set(PAGES))

TRAINER = ["trainer.max_epochs=1", "trainer.max_steps=2", "trainer.batch_size=4", "trainer.figure_every_epochs=1"]
TRAINER += ["trainer.num_workers=0", "trainer.num_threads=1", "trainer.accelerator=cpu", "logging.wandb=disabled"]
STAGE_A = [*tiny_stages.ENCODER, *tiny_stages.DECODER, *TRAINER, "trainer.val_fraction=0.2"]
STAGE_B = [*TRAINER, "num_preview=1", "preview_steps=2"]
PICTURES = ["num_samples=2", "sampler=ddim", "num_steps=2", "num_threads=1"]
SCORES = ["classifier=demo", "num_ways=[10]", "num_trials=0", "nsd_suite=false", "num_bootstrap=50", "num_threads=1"]
SCORES += ["logging.wandb=disabled"]
SIMULATION = [f"voxels.{name}={count}" for name, count in tiny_stages.VOXELS.items()]
SIMULATION += ["train_per_class=2", "num_test=8", "num_resting=2", "num_frames=400"]
LOOK = ("classifier=demo", "num_ways=10", "num_stimuli=4", "num_steps=2", "num_masks=2", "num_bootstrap=20")


def in_chain(**stages: list[str]) -> tuple[str, ...]:
    """Settings of stages as a chain takes them."""
    return tuple(f"{stage}.settings.{item}" for stage, items in stages.items() for item in items)


STAGES = {"pretrain_mbm": STAGE_A, "finetune_mbm": TRAINER, "generate": PICTURES, "evaluate": SCORES}
PUBLISHED = in_chain(**STAGES, finetune_ldm=[*STAGE_B, "image_size=16"])
OWN = tuple(item for item in PUBLISHED if not item.startswith("finetune_mbm."))  # a stage that it has not
DEMO = in_chain(**STAGES, finetune_ldm=STAGE_B, simulate=SIMULATION)


def raw_hcp(folder: Path) -> None:
    """Two subjects in the folder that the command names, on the surfaces of the real parcellation."""
    axis, rng = hcp_files.brain(num_vertices=32492, medial=0), np.random.default_rng(0)
    for subject in ("100307", "100408"):
        file = folder / "raw" / "HCP" / hcp_files.RUN.replace("100307", subject)
        hcp_files.save_run(file, 1e4 + 50 * rng.standard_normal((20, len(axis))), axis)


def raw_god(folder: Path) -> None:
    """Subject3.h5, its pictures and the class index, where the command looks for them."""
    study = folder / "study"
    study.mkdir()
    god_files.make_study(study, np.random.default_rng(0))
    (folder / "raw").mkdir()
    shutil.move(study / "fmri", folder / "raw" / "GOD")
    shutil.move(study / "images", folder / "raw" / "GOD" / "images")
    shutil.move(study / "index.json", folder / "imagenet_class_index.json")


def raw_bold5000(folder: Path) -> None:
    """The published folders below data/BOLD5000."""
    bold5000_files.make_study(folder / "data" / "BOLD5000", np.random.default_rng(0))


def raw_nsd(folder: Path) -> None:
    """One session of two subjects, below raw/NSD."""
    nsd_files.make_study(folder / "raw" / "NSD", ("subj01", "subj02"), 1)


def raw_betas(folder: Path) -> None:
    """Beta images, NIfTI in `betas` and CIFTI in `cifti`, with their tables, a mask, an atlas and the stimuli."""
    betas_files.make_study(folder, np.random.default_rng(0))


def own_data(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """my_data.npz as the Python of docs/data.md writes it, from made-up arrays."""
    rng = np.random.default_rng(0)
    names = {"fmri": rng.standard_normal((24, 128)), "images": rng.integers(0, 256, (24, 64, 64, 3), np.uint8)}
    names |= {"split": ["train"] * 16 + ["test"] * 8, "stimulus": np.arange(24)}
    names |= {"in_v1": np.arange(128) < 64, "in_vc": np.ones(128, bool)}
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "data.md").read_text(), re.MULTILINE | re.DOTALL)
    patch.chdir(folder)
    exec(code, names)
    np.save("rows.npy", names["fmri"][16:])


@dataclass(frozen=True)
class Recipe:
    """`more` is added to commands that begin with `command`; `make` puts the files it needs into an empty folder.

    `published` is for commands that read the published weights of GOD: those of an earlier command stand for them.
    `parse` alone is for work that nothing makes small, and that a test of its own does.
    """

    command: str
    more: tuple[str, ...] = ()
    make: Callable[[Path], None] | None = None
    statuses: tuple[int, ...] = (0,)
    published: bool = False
    parse: bool = False


DECODED = "decoded=runs/finetune_ldm_god/decoded"
IMAGERY = "decoded=runs/finetune_ldm_god/decoded_imagery"
# The first that fits is taken: the longer before the shorter.
SMALL_WORK = (
    "num_voxels=128",
    "model.embed_dim=32",
    "model.depth=1",
    "model.num_heads=2",
    "model.decoder_embed_dim=16",
)
SMALL_WORK += ("model.decoder_depth=1", "model.decoder_num_heads=2", "ldm=demo", "num_subjects=2", "repetitions=1")
SMALL_WORK += ("num_threads=1", "precisions=[32-true]")
RECIPES = (
    Recipe("python scripts/check_data.py", ("--any-size",), statuses=(0, 1)),
    Recipe("python scripts/prepare_hcp.py", (), raw_hcp),
    Recipe("python scripts/prepare_god.py", ("--size", "16"), raw_god),
    Recipe("python scripts/prepare_bold5000.py", ("--size", "16"), raw_bold5000),
    Recipe("python scripts/prepare_nsd.py", ("--workers", "1"), raw_nsd),
    Recipe("python scripts/prepare_betas.py", ("--size", "16"), raw_betas),
    Recipe("python scripts/simulate.py", tuple(SIMULATION)),
    Recipe("python scripts/pretrain_mbm.py", tuple(STAGE_A)),
    Recipe("python scripts/finetune_mbm.py", tuple(TRAINER)),
    Recipe("python scripts/finetune_ldm.py --config configs/finetune_ldm_demo.yaml", tuple(STAGE_B)),
    Recipe("python scripts/finetune_ldm.py --config configs/finetune_ldm_mosaic.yaml", parse=True),
    Recipe("python scripts/finetune_ldm.py", (*STAGE_B, "image_size=16")),
    Recipe("python scripts/generate.py run=pretrains/GOD/finetuned.pth", tuple(PICTURES), published=True),
    Recipe("python scripts/generate.py --config configs/generate_god.yaml split=imagery", parse=True),
    Recipe("python scripts/generate.py", tuple(PICTURES)),
    Recipe("python scripts/audit.py decoded=my/pictures", parse=True),
    Recipe("python scripts/audit.py decoded=runs/sbj_1/decoded", parse=True),
    Recipe(f"python scripts/audit.py {DECODED} others=[runs/baseline_ridge/latent]", parse=True),  # of other sizes here
    Recipe("python scripts/audit.py", ("features=pixels", "logging.wandb=disabled")),
    Recipe("python scripts/evaluate.py compare"),
    Recipe(f"python scripts/evaluate.py --config configs/evaluate_god.yaml {IMAGERY}", parse=True),
    Recipe("python scripts/evaluate.py", tuple(SCORES)),
    Recipe("python scripts/run_chain.py --config configs/demo.yaml", DEMO),
    Recipe("python scripts/run_chain.py --config configs/bold5000.yaml", ("dry_run=true",), statuses=(2,)),  # absent
    Recipe("python scripts/run_chain.py --config configs/own.yaml", OWN),
    Recipe("python scripts/run_chain.py --config configs/haxby.yaml", parse=True),  # its data come from outside
    Recipe("python scripts/prepare_blocks.py", parse=True),  # tests/test_block_design.py runs it
    Recipe("python scripts/score_categories.py", parse=True),  # and this
    Recipe("python scripts/run_chain.py", (*PUBLISHED, "subjects=[sbj_3]")),
    Recipe("python scripts/ablate.py", ("dry_run=true",)),  # its rows are chains, which run above
    Recipe("python scripts/score_mbm.py", ("num_masks=2",)),
    Recipe("python scripts/figures.py", ("num_stimuli=2", "num_samples=1", "pixels=16", "num_rows=1")),
    Recipe("python scripts/look_inside.py run=runs/pretrain_hcp", (*LOOK, "subject=100001")),
    Recipe("python scripts/look_inside.py run=runs/god/pretrain_mbm", (*LOOK, "subject=100001")),
    Recipe("python scripts/look_inside.py", LOOK),
    Recipe("python scripts/export_model.py"),
    Recipe("python scripts/convert_checkpoint.py", published=True),
    Recipe("python scripts/baseline_ridge.py", (*PICTURES, "overwrite=true", "ldm=demo")),  # one with classes
    Recipe("python scripts/benchmark.py parts=[solvers]", parse=True),
    Recipe("python scripts/benchmark.py parts=[audit]", parse=True),
    Recipe("python scripts/benchmark.py parts=[stage_a,stage_b,sampling]", SMALL_WORK),
    Recipe("python scripts/benchmark.py", ("num_stimuli=8", "size=16", "num_samples=2", "repetitions=1")),
    Recipe("python scripts/estimate_memory.py", parse=True),
    Recipe("python scripts/train_demo_ldm.py", parse=True),
)


def run_here(processes: Processes, step: Step, settings: Path, log: Path, device: str | None) -> int:
    """A step of a chain in this process, in the place of one of its own."""
    outcome = run(step.script, "--config", settings)
    log.write_text(outcome.out + outcome.err)
    return outcome.status


class Workshop:
    """A folder like a fresh clone with data in it, where commands run in this process."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch):
        self.folder, self.patch = folder, patch
        self.said: dict[str, str] = {}  # what scripts of the shell have printed, through what they started
        self.done: dict[str, Outcome] = {}  # commands that an earlier block gave already
        for name in ("configs", "scripts"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        patch.setattr(Processes, "__call__", run_here)

    def add_data(self) -> None:
        """Three subjects and the label-to-image model, where the published settings look for them."""
        tiny_stages.simulate_experiment(self.folder, num_subjects=3)
        weights = self.folder / "pretrains" / "ldm" / "label2img"
        weights.mkdir(parents=True)
        for name in ("model.ckpt", "config.yaml"):
            shutil.move(self.folder / name, weights / name)
        own_data(self.folder, self.patch)

    def add_published_weights(self) -> None:
        """fmri_encoder.pth and finetuned.pth of the runs on GOD, in the published form and place."""
        files = {"finetune_mbm_god": "fmri_encoder.pth", "finetune_ldm_god": "finetuned.pth"}
        for run_folder, name in files.items():
            target = self.folder / "pretrains" / "GOD" / name
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                outcome = run("convert_checkpoint", self.folder / "runs" / run_folder, target, "--to", "published")
                assert outcome.status == 0, outcome.err

    def run(self, command: str) -> Outcome:
        """Run a command, once, as its recipe says; fails where there is none, or with what the command said."""
        plain = " ".join(words(command))
        if plain not in self.done:
            self.done[plain] = self.run_now(command)
        return self.done[plain]

    def run_now(self, command: str) -> Outcome:
        """The same, although it ran before."""
        recipe = find_recipe(command)
        if recipe.parse:
            parse_only(command)
            return Outcome(0, "", "")
        folder = self.folder
        if recipe.published:
            self.add_published_weights()
        if recipe.make:
            folder = self.folder / f"own-{len(list(self.folder.glob('own-*')))}"
            folder.mkdir()
            recipe.make(folder)
        self.patch.chdir(folder)
        _, script, *arguments = words(command)
        outcome = run(Path(script).stem, *arguments, *recipe.more)
        assert outcome.status in recipe.statuses, f"`{command}` ended with {outcome.status}: {outcome.err}"
        return outcome

    def shell(self, command: str) -> list[str]:
        """Run a shell script with programs that only take notes in the place of python and apt-get: what it started."""
        tools, notes = self.folder / "tools", self.folder / "notes"
        tools.mkdir(exist_ok=True)
        notes.write_text("")
        for name in ("python", "python3", "apt-get", "chromium"):
            (tools / name).write_text(NOTE.format(notes=notes, tools=tools))
            (tools / name).chmod(0o755)
        environment = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "VIRTUAL_ENV": str(tools)}
        options = {"cwd": self.folder, "env": environment, "capture_output": True, "text": True, "timeout": 60}
        done = subprocess.run(["bash", *words(command)], **options)
        assert done.returncode == 0, f"`{command}` ended with {done.returncode}: {done.stderr}"
        return [" ".join(["python", *json.loads(f"[{line}]")]) for line in notes.read_text().splitlines()]


# `python -c` is asked for its prefix; everything else is written down, an argument a JSON string.
NOTE = """#!/bin/bash
if [ "$1" = -c ]; then echo "{tools}"; exit; fi
line=""
for word in "$@"; do line="$line,\\"$word\\""; done
echo "${{line#,}}" >> "{notes}"
"""


def find_recipe(command: str) -> Recipe:
    """The recipe of a command. Fails, saying what to do, where there is none."""
    plain = " ".join(words(command))
    for recipe in RECIPES:
        if re.match(re.escape(recipe.command) + r"(?!\S)", plain):
            return recipe
    raise AssertionError(f"no test runs `{command}`: add it to RECIPES in tests/{Path(__file__).name}")
