"""What a simulated experiment consists of: subjects, pictures, repeats, voxels, noise."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from mindvis.common.draws import generator
from mindvis.common.errors import InputError
from mindvis.simulation.cortex import AREAS, Features, picture_features
from mindvis.simulation.stimuli import CLASS_NAMES, draw_stimuli

VOXELS = {"V1": 160, "V2": 140, "V3": 110, "V4": 90, "LOC": 120, "FFA": 60, "PPA": 60}


@dataclass(frozen=True)
class Protocol:
    """What was shown and how well responses were measured.

    `snr`: variance of the signal over that of the noise in one trial, mean over voxels. Repeats of a picture are
    averaged; test trials are kept apart as well. Of `unseen_classes` there are no training trials, though the image
    model knows them, and `unseen_per_class` test pictures. With `imagery_repeats` the test pictures are imagined too.
    """

    snr: float
    train_repeats: int
    test_repeats: int
    unseen_classes: int = 0
    unseen_per_class: int = 8
    imagery_repeats: int = 0


PROTOCOLS = {
    # 3T, a training image shown once and a test image 35 times, of classes never trained on, and imagined 10 times:
    # Horikawa & Kamitani 2017; there all test classes are unseen, here new pictures of trained classes come first
    "god": Protocol(snr=0.1, train_repeats=1, test_repeats=35, unseen_classes=6, imagery_repeats=10),
    # 7T, each image shown three times as in the Natural Scenes Dataset (Allen et al. 2022); reliable voxels, whose
    # noise ceiling is half of the variance of such an average
    "demo": Protocol(snr=1 / 3, train_repeats=3, test_repeats=3),
}


def choose_protocol(name: str, **changes: float | None) -> Protocol:
    """A preset by name, with what is given (not None) in place of its own. Raises InputError for an unknown name."""
    if name not in PROTOCOLS:
        raise InputError(f"setting protocol is {name!r}; needed: one of {', '.join(PROTOCOLS)}")
    return replace(PROTOCOLS[name], **{key: value for key, value in changes.items() if value is not None})


@dataclass(frozen=True)
class Experiment:
    """Sizes and seed of a simulated experiment. Raises InputError for numbers that make none.

    `voxels` are counts by area (those not named: VOXELS); every subject has a few more or less. `t_r` is in seconds.
    """

    seed: int = 0
    protocol: Protocol = PROTOCOLS["demo"]
    num_subjects: int = 2
    train_per_class: int = 100
    num_test: int = 48
    voxels: Mapping[str, int] = field(default_factory=dict)
    num_resting: int = 20
    num_frames: int = 1200
    t_r: float = 0.72

    def __post_init__(self) -> None:
        object.__setattr__(self, "voxels", VOXELS | dict(self.voxels))
        unknown = sorted(set(self.voxels) - set(AREAS))
        if unknown:
            raise InputError(f"voxels.{unknown[0]}: no such area; needed: {', '.join(AREAS)}")
        counts = {f"voxels.{area}": self.voxels.get(area, 0) for area in AREAS}
        names = ("num_subjects", "train_per_class", "num_test", "num_frames", "t_r")
        may_be_none = ("unseen_classes", "imagery_repeats")
        measured = {f"protocol.{k}": value for k, value in vars(self.protocol).items() if k not in may_be_none}
        for name, value in ({name: getattr(self, name) for name in names} | counts | measured).items():
            if not value > 0:
                raise InputError(f"{name} is {value}; needed: more than 0")
        if self.num_resting < 0 or self.seed < 0 or self.protocol.imagery_repeats < 0:
            found = f"num_resting is {self.num_resting}, seed is {self.seed}"
            raise InputError(f"{found}, imagery_repeats is {self.protocol.imagery_repeats}; needed: 0 or more")
        if not 0 <= self.protocol.unseen_classes < len(CLASS_NAMES):
            found = f"unseen_classes is {self.protocol.unseen_classes}"
            raise InputError(f"{found}; needed: 0 to {len(CLASS_NAMES) - 1}")

    def unseen(self) -> np.ndarray:
        """Numbers of the classes that no training picture shows, drawn from the seed, in order."""
        rng = generator((self.seed, 0, 0), "unseen classes")
        return np.sort(rng.choice(len(CLASS_NAMES), self.protocol.unseen_classes, replace=False))


@dataclass(frozen=True)
class Stimuli:
    """Pictures uint8 [n h w 3], their classes [n], what the cortex takes from them; training ones come first."""

    images: np.ndarray
    class_ids: np.ndarray
    features: Features
    num_train: int


def draw_experiment(experiment: Experiment) -> Stimuli:
    """All stimuli of an experiment, the classes in turn.

    Test pictures are new ones of the trained classes, then those of the unseen classes.
    """
    unseen = experiment.unseen()
    trained = np.setdiff1d(np.arange(len(CLASS_NAMES)), unseen)
    num_train = experiment.train_per_class * len(trained)
    index, place = np.divmod(np.arange(num_train + experiment.num_test), len(trained))
    per_class = experiment.protocol.unseen_per_class
    class_ids = np.concatenate([trained[place], np.tile(unseen, per_class)])
    index = np.concatenate([index, experiment.train_per_class + np.repeat(np.arange(per_class), len(unseen))])
    images = draw_stimuli(experiment.seed, class_ids, index)
    return Stimuli(images, class_ids, picture_features(images, class_ids), num_train)
