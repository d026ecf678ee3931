"""The steps of a chain: which script runs with which settings, where its results go, and what it waits for."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from mindvis.common.errors import InputError
from mindvis.common.files import digest
from mindvis.config.decoding import BaselineConfig, EvaluateConfig, GenerateConfig
from mindvis.config.loading import find_config, flatten, from_plain, plain, read_yaml
from mindvis.config.schemas import FinetuneLDMConfig, FinetuneMBMConfig, PretrainMBMConfig
from mindvis.config.tools import ChainConfig, ScoreMBMConfig, SimulateConfig, StageConfig
from mindvis.training.runs import FREE_SETTINGS

# In the order in which they run; each is a script of that name but for those of SCRIPTS. The SHARED ones run once for
# all subjects.
SCHEMAS = {
    "simulate": SimulateConfig,
    "pretrain_mbm": PretrainMBMConfig,
    "score_mbm": ScoreMBMConfig,
    "pretrain_ldm": FinetuneLDMConfig,
    "finetune_mbm": FinetuneMBMConfig,
    "finetune_ldm": FinetuneLDMConfig,
    "generate": GenerateConfig,
    "baseline_ridge": BaselineConfig,
    "evaluate": EvaluateConfig,
    "demo_summary": EvaluateConfig,
}
SCRIPTS = {"pretrain_ldm": "finetune_ldm"}
SHARED = ("simulate", "pretrain_mbm", "score_mbm", "pretrain_ldm")
TRAININGS = ("pretrain_mbm", "pretrain_ldm", "finetune_mbm", "finetune_ldm")
# Stages that chains which share runs repeat with other settings; what is no part of their results.
APART = {"simulate": ("out",), "generate": ("run", "output", "control", "overwrite")}
APART["baseline_ridge"] = ("output", "overwrite")


@dataclass(frozen=True)
class Step:
    """One process of a chain. `folder` is where its results go, `needs` are the names of steps before it."""

    name: str
    stage: str
    subject: str | None
    settings: dict
    folder: Path
    needs: tuple[str, ...] = ()

    @property
    def script(self) -> str:
        """Name of its script, without the suffix."""
        return SCRIPTS.get(self.stage, self.stage)

    @property
    def file_name(self) -> str:
        """Name of its settings file and its log, without the suffix."""
        return self.name.replace("/", "-")


def short_digest(settings: Mapping) -> str:
    """12 hexadecimal digits that name a folder after its settings."""
    return digest([json.dumps(settings, sort_keys=True)])[:12]


def plan_chain(config: ChainConfig, *, by_settings: bool = False) -> list[Step]:
    """All steps, each after those it needs: the shared ones, then subject by subject.

    Names are `pretrain_mbm`, `sbj_3/finetune_ldm`, `sbj_3/generate`; with `by_settings` those that several chains
    share: equal settings, with equal runs before them, give the same name. A training's name is its folder's too.
    Raises `InputError` for settings of the chain or of a stage that are wrong.
    """
    check_chain(config)
    planner = _Planner(config, by_settings)
    shared = planner.add_all(SHARED, None, {})
    for subject in config.subjects:
        planner.add_all([stage for stage in SCHEMAS if stage not in SHARED], subject, shared)
    return planner.steps


def check_chain(config: ChainConfig) -> None:
    """Raises `InputError` for a chain without stages or subjects, a subject named twice, or devices that don't fit."""
    stages = [name for name in SCHEMAS if getattr(config, name) is not None]
    if not stages:
        raise InputError(f"chain {config.root}: no stage; needed: --config configs/god.yaml, or one like it")
    if config.pretrain_ldm is not None and config.finetune_mbm is not None:
        raise InputError(f"chain {config.root}: pretrain_ldm has its encoder; needed: finetune_mbm=null")
    if not config.subjects and not set(stages) <= set(SHARED):
        raise InputError("setting subjects is empty; needed: the subjects to decode, such as subjects=[sbj_3]")
    if len(set(config.subjects)) < len(config.subjects):
        raise InputError(f"setting subjects is {config.subjects}; needed: each subject once")
    if len(config.subjects) > 1 and not config.subject_folders:
        raise InputError(f"setting subject_folders is false with {len(config.subjects)} subjects; needed: one subject")
    if config.devices < 1:
        raise InputError(f"setting devices is {config.devices}; needed: at least 1")
    if config.fork and config.devices > 1:  # a fork of several threads may wait for the locks of the others for ever
        raise InputError(f"setting fork is true with devices={config.devices}; needed: devices=1, or fork=false")


def stage_settings(
    stage: str, config: StageConfig, wired: dict | None = None, moved: tuple[str, str] | None = None
) -> dict:
    """All settings of a stage as nested dicts: defaults <- its file <- what the chain lays over it <- `wired`.

    `moved`: the folder of simulated data in the file of `simulate`, and in this chain; data in the stage's file follow.
    Raises `InputError` naming the stage, its file and the setting that is wrong.
    """
    content = OmegaConf.create(read_yaml(find_config(config.config), as_text=True) if config.config else {})
    if moved:
        _follow(content, *moved)
    merged = OmegaConf.merge(content, config.settings, wired or {})
    source = f"stage {stage} of the chain" + (f" ({config.config})" if config.config else "")
    return plain(from_plain(SCHEMAS[stage], cast(dict, OmegaConf.to_container(merged)), source))


def binding(settings: dict, free: tuple[str, ...] = FREE_SETTINGS) -> dict[str, Any]:
    """Settings as dotted keys, without those of the names (or groups) in `free`."""
    flat = flatten(settings)
    return {k: v for k, v in flat.items() if not any(k == name or k.startswith(name + ".") for name in free)}


class _Planner:
    def __init__(self, config: ChainConfig, by_settings: bool):
        self.config, self.by_settings, self.root = config, by_settings, Path(config.root)
        self.steps: list[Step] = []
        self.moved: tuple[str, str] | None = None  # folder of simulated data in its file and in this chain

    def add_all(self, stages: Sequence[str], subject: str | None, before: dict[str, Step]) -> dict[str, Step]:
        """Add those stages that the chain has; returns the steps by stage, `before` among them."""
        done = dict(before)
        for stage in stages:
            if getattr(self.config, stage) is None:
                continue
            done[stage] = self._add(stage, subject, done)
            if stage == "simulate":
                in_file = stage_settings(stage, StageConfig(getattr(self.config, stage).config))
                self.moved = (in_file["out"], done[stage].settings["out"])
            if stage == "generate":
                for control in self.config.controls:
                    done[control] = self._add(stage, subject, done, control)
        return done

    def _add(self, stage: str, subject: str | None, done: dict[str, Step], control: str = "none") -> Step:
        config, wired = getattr(self.config, stage), self._wired(stage, subject, done, control)
        settings = stage_settings(stage, config, wired, self.moved)
        if self.by_settings and stage in ("generate", "baseline_ridge"):  # pictures apart by their settings
            folder = Path(settings["output"]) if control == "none" else Path(settings["output"]).parent
            folder = folder.with_name(f"{folder.name}-{self._digest(stage, settings)}")
            settings["output"] = str(folder if control == "none" else folder / control)
        name, folder = self._place(stage, subject, done, settings)
        name += "" if control == "none" else f"_{control}"
        if stage in TRAININGS:
            settings["run_dir"] = str(folder)
        if (settings.get("logging") or {}).get("group", "") is None:
            settings["logging"]["group"] = self.root.name  # runs of one chain stand together in wandb
        needs = tuple(step.name for step in done.values() if step.stage != "score_mbm")
        self.steps.append(Step(name, stage, subject, settings, folder, needs))
        return self.steps[-1]

    def _digest(self, stage: str, settings: dict) -> str:
        return short_digest(binding(settings, FREE_SETTINGS + APART.get(stage, ())))

    def _place(self, stage: str, subject: str | None, done: dict[str, Step], settings: dict) -> tuple[str, Path]:
        """Name and folder: trainings have their own, the others write where their settings say."""
        home = done.get("pretrain_mbm") if stage == "score_mbm" else _decoder(done)
        home = _pictures(done) if stage == "evaluate" else home
        name = f"{subject}/{stage}" if subject and self.config.subject_folders else stage
        if self.by_settings:
            own = stage in TRAININGS or stage in APART
            name = f"{stage}-{self._digest(stage, settings)}" if own else stage
            name = name if stage in TRAININGS or not home else f"{home.name}/{name}"
        if stage in TRAININGS:
            return name, self.root / name
        folders = {"simulate": "out", "score_mbm": "run", "generate": "output"}
        if stage in folders:
            return name, Path(settings[folders[stage]])
        if stage == "baseline_ridge":
            return name, Path(settings["output"]) / settings["targets"][0]
        return name, Path(settings["output"] or settings["decoded"])  # evaluate and its summary

    def _wired(self, stage: str, subject: str | None, done: dict[str, Step], control: str) -> dict:
        """Settings of a stage that follow from the chain."""
        folders = {name: str(step.folder) for name, step in done.items()}
        wired: dict = {} if stage == "simulate" or self.config.seed is None else {"seed": self.config.seed}
        if stage in ("finetune_mbm", "finetune_ldm", "baseline_ridge"):
            wired["data"] = {"subjects": [subject]}
        if stage in TRAININGS:
            return wired | _encoder_of(stage, folders)
        if stage in ("evaluate", "demo_summary"):
            found = {"decoded": _pictures(done), "output": done.get("evaluate") if stage == "demo_summary" else None}
            return wired | {name: str(step.folder) for name, step in found.items() if step is not None}
        if stage == "baseline_ridge":
            return wired | {"output": str(self.root / stage), "overwrite": True, "with_controls": self.config.controls}
        decoder = _decoder(done)
        run = str(decoder.folder) if decoder else None
        run = folders.get("pretrain_mbm") if stage == "score_mbm" else run
        if run and stage in ("score_mbm", "generate"):
            wired["run"] = run
        if stage == "generate" and decoder and decoder.subject is None:  # one model of several subjects
            wired["data"] = decoder.settings["data"] | {"subjects": [subject]}
        if stage == "generate":
            of_many = decoder is not None and decoder.subject is None
            folder = Path(run) if run else self.root / str(subject)
            folder = folder / (f"decoded_{subject}" if of_many else "decoded")
            output = folder if control == "none" else folder / control
            wired |= {"control": control, "overwrite": True, "output": str(output)}
        return wired


def _decoder(done: dict[str, Step]) -> Step | None:
    """The training whose decoder makes the pictures: the subject's own, or the one of several subjects."""
    return done.get("finetune_ldm") or done.get("pretrain_ldm")


def _pictures(done: dict[str, Step]) -> Step | None:
    """The step whose pictures are scored."""
    return done.get("generate") or done.get("baseline_ridge")


def _encoder_of(stage: str, folders: dict[str, str]) -> dict:
    """The Stage A run that a training begins with, where the chain has one."""
    if stage == "finetune_mbm" and "pretrain_mbm" in folders:
        return {"pretrained": folders["pretrain_mbm"]}
    if stage == "finetune_ldm" and "pretrain_ldm" in folders:
        return {"start": folders["pretrain_ldm"], "encoder": None}
    if stage == "pretrain_ldm" and "pretrain_mbm" in folders:
        return {"encoder": folders["pretrain_mbm"]}
    if stage == "finetune_ldm" and folders.keys() & {"finetune_mbm", "pretrain_mbm"}:
        return {"encoder": folders.get("finetune_mbm") or folders["pretrain_mbm"]}
    return {}


def _follow(content: DictConfig, before: str, now: str) -> None:
    """Move the folders of data that lie below `before` to the same place below `now`."""
    for key in ("data.root", "extra_data.root"):
        root = OmegaConf.select(content, key)
        if root and Path(root).is_relative_to(before):
            OmegaConf.update(content, key, str(now / Path(root).relative_to(before)))
