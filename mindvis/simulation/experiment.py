"""A simulated experiment: its subjects and pictures, and what a scanner measures of them while they see, and rest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.signal import fftconvolve
from scipy.stats import gamma

from mindvis.common.draws import generator
from mindvis.common.errors import InputError, check_setting
from mindvis.simulation.cortex import AREAS, Features, area_responses, correlate, picture_features, standardise
from mindvis.simulation.stimuli import CLASS_NAMES, draw_stimuli

VOXELS = {"V1": 160, "V2": 140, "V3": 110, "V4": 90, "LOC": 120, "FFA": 60, "PPA": 60}
NOISE_LENGTH = 8.0  # voxels over which noise stays alike along the cortex
# shares of the noise variance: neighbouring cortex, single voxels (thermal), whole areas (breathing, attention)
LOCAL_SHARE, VOXEL_SHARE, AREA_SHARE = 0.35, 0.5, 0.15
SNR_SPREAD = 0.6  # deviation of log SNR among voxels
# what is left of a voxel's response to a picture that is only imagined: weaker, and none where the retina drives it
IMAGERY_GAIN = {"V1": 0.0, "V2": 0.0, "V3": 0.0, "V4": 0.3, "LOC": 0.5, "FFA": 0.5, "PPA": 0.5}
SPONTANEOUS_SHARE = 0.5  # of resting variance that looks like evoked activity (Kenet et al. 2003)
HRF_SECONDS = 32.0


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
    check_setting("protocol", name, PROTOCOLS)
    given: dict[str, Any] = {key: value for key, value in changes.items() if value is not None}
    return replace(PROTOCOLS[name], **given)


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
        repeats, unseen, most = self.protocol.imagery_repeats, self.protocol.unseen_classes, len(CLASS_NAMES) - 1
        if min(self.num_resting, self.seed, repeats) < 0:
            found = f"num_resting is {self.num_resting}, seed is {self.seed}, imagery_repeats is {repeats}"
            raise InputError(f"{found}; needed: 0 or more")
        if not 0 <= unseen <= most:
            raise InputError(f"unseen_classes is {unseen}; needed: 0 to {most}")

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


@dataclass(frozen=True)
class Viewing:
    """One subject's responses, each voxel scaled by the mean and deviation of its training rows."""

    train: np.ndarray  # [n v], repeats averaged
    trials: np.ndarray  # [m*r v], image by image
    averages: np.ndarray  # [m v]
    snr: np.ndarray  # [v], of a single trial
    area_sizes: list[int]
    imagery: np.ndarray | None = None  # [m*i v], trials in which the test pictures are imagined, image by image


def view(experiment: Experiment, stimuli: Stimuli, subject: int) -> Viewing:
    """What the scanner measures while one subject (from 1) sees all stimuli."""
    rng = generator((experiment.seed, subject, 0), "viewing")
    signal, sizes = responses(experiment, stimuli.features, rng)
    snr = voxel_snr(signal.shape[1], experiment.protocol.snr, rng)
    signal *= np.sqrt(snr)  # noise has unit variance
    train, test = np.split(signal, [stimuli.num_train])
    train = train + trial_noise(len(train), sizes, rng) / np.float32(experiment.protocol.train_repeats**0.5)
    repeats = experiment.protocol.test_repeats
    trials = np.repeat(test, repeats, axis=0) + trial_noise(len(test) * repeats, sizes, rng)
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    trials = (trials - mean) / deviation
    averages = trials.reshape(len(test), repeats, -1).mean(axis=1)
    imagery = None
    if experiment.protocol.imagery_repeats:
        imagery = (_imagine(experiment, test, sizes, subject) - mean) / deviation
    return Viewing((train - mean) / deviation, trials, averages, snr, sizes, imagery)


def _imagine(experiment: Experiment, signal: np.ndarray, sizes: Sequence[int], subject: int) -> np.ndarray:
    """Trials in which a subject imagines the test pictures: signal [m v] -> [m*i v], with noise of its own stream."""
    repeats = experiment.protocol.imagery_repeats
    rng = generator((experiment.seed, subject, 0), "imagery")
    gain = np.repeat([IMAGERY_GAIN[area] for area in AREAS], sizes).astype(np.float32)
    return np.repeat(signal * gain, repeats, axis=0) + trial_noise(len(signal) * repeats, sizes, rng)


def responses(experiment: Experiment, features: Features, rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
    """Unit-variance signals [n v] of a new subject, and the voxels in each area, a few more or less than asked for."""
    sizes = [max(2, round(experiment.voxels[area] * rng.uniform(0.95, 1.05))) for area in AREAS]
    areas = [standardise(area_responses(features, area, n, rng)) for area, n in zip(AREAS, sizes, strict=True)]
    return np.concatenate(areas, axis=1).astype(np.float32), sizes


def trial_noise(num_rows: int, area_sizes: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Unit-variance noise [n v], correlated along the cortical order within each area and shared over it."""
    areas = []
    for size in area_sizes:
        local = correlate(rng.standard_normal((num_rows, size), dtype=np.float32), NOISE_LENGTH)
        voxel = rng.standard_normal((num_rows, size), dtype=np.float32)
        shared = rng.standard_normal((num_rows, 1), dtype=np.float32)
        areas.append(LOCAL_SHARE**0.5 * local + VOXEL_SHARE**0.5 * voxel + AREA_SHARE**0.5 * shared)
    return np.concatenate(areas, axis=1)


def voxel_snr(num_voxels: int, mean: float, rng: np.random.Generator) -> np.ndarray:
    """Signal to noise variance ratio of every voxel, log-normal with the given mean exactly: [v]."""
    ratio = np.exp(SNR_SPREAD * rng.standard_normal(num_voxels))
    return (mean * ratio / ratio.mean()).astype(np.float32)


def haemodynamic_response(t_r: float) -> np.ndarray:
    """The usual double-gamma response (peak at 5 s, undershoot at 15 s), sampled every `t_r` seconds: [k]."""
    seconds = np.arange(0, HRF_SECONDS, t_r)
    return (gamma.pdf(seconds, 6) - gamma.pdf(seconds, 16) / 6).astype(np.float32)


def resting_run(
    evoked: np.ndarray, area_sizes: Sequence[int], *, num_frames: int, t_r: float, rng: np.random.Generator
) -> np.ndarray:
    """Resting-state frames [num_frames v], each voxel with mean 0 and variance 1 over the run.

    Patterns that pictures evoke (rows of `evoked` [m v]) come and go at random on top of noise with the spatial
    correlation of `trial_noise`; both pass through the haemodynamic response.
    """
    response = haemodynamic_response(t_r)[:, None]
    num_drawn = num_frames + len(response) - 1  # the start, where the response is incomplete, is cut off
    waxing = rng.standard_normal((num_drawn, len(evoked)), dtype=np.float32)
    spontaneous = standardise(waxing @ standardise(evoked))
    noise = trial_noise(num_drawn, area_sizes, rng)
    neural = SPONTANEOUS_SHARE**0.5 * spontaneous + (1 - SPONTANEOUS_SHARE) ** 0.5 * noise
    return standardise(fftconvolve(neural, response, mode="valid", axes=0)).astype(np.float32)
