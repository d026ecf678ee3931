"""Decoding while Stage B trains: what a few stimuli score, as val/..., and by that which weights are kept as the best.

The loss is no measure of decoding: on held-out stimuli it is lowest long before the pictures are best. What is decoded
and scored follows from settings, seed and epoch alone, so a run that is resumed logs and keeps the same.
"""

import logging
from collections.abc import Sequence

import numpy as np
import pytorch_lightning as pl
import torch

from mindvis.common.errors import InputError
from mindvis.config.schemas import FinetuneLDMConfig, SelectionRuleConfig, WatchConfig
from mindvis.data import PairedDataset
from mindvis.decoding.previews import DecodedStimuli, EveryFewEpochs, Sampling, decode_in_training
from mindvis.evaluation.classifiers import Classifier, load_classifier
from mindvis.evaluation.identification import identification_from_matrix, n_way_accuracy
from mindvis.evaluation.similarity import LARGER_IS_CLOSER, similarity_matrix

log = logging.getLogger(__name__)

SMALLEST_FOR_LPIPS = 64  # pixels: less does not pass AlexNet's pooling


class Scorer:
    """Scores of decoded pictures, one a sample set: n-way by a classifier, and by each metric of two pictures.

    What has no weights is left out with a line in the log, unless `needed` names it: then it is an InputError.
    """

    def __init__(self, settings: WatchConfig, stimuli: np.ndarray, *, needed: str | None = None):
        self.settings, self.stimuli = settings, stimuli
        self.n_way = f"{settings.num_ways}_way_top_1"
        unknown = set(settings.metrics) - LARGER_IS_CLOSER.keys()
        if unknown:
            raise InputError(f"setting watch.metrics names {unknown.pop()!r}; needed: {', '.join(LARGER_IS_CLOSER)}")
        self.classifier = self._classifier(required=needed == "n_way")
        self.metrics = [metric for metric in settings.metrics if self._has(metric, needed)]

    def __call__(self, decoded: np.ndarray, rows: Sequence[int], device: torch.device) -> dict[str, np.ndarray]:
        """Name -> [k], the mean over stimuli of each sample set: uint8 [n k h w 3], their places among the stimuli."""
        stimuli = self.stimuli[list(rows)]
        scores = {} if self.classifier is None else {self.n_way: self._n_way(decoded, stimuli, device)}
        for metric in self.metrics:
            scores |= self._pairs(metric, decoded, stimuli, device)
        return scores

    def _n_way(self, decoded: np.ndarray, stimuli: np.ndarray, device: torch.device) -> np.ndarray:
        """Expected n-way top-1 accuracy (paper, Algorithm D.1) of each sample set: [k]."""
        assert self.classifier is not None
        self.classifier.move(device)
        target = self.classifier.classify(stimuli).top_class
        logits = self.classifier.classify(decoded.reshape(-1, *decoded.shape[2:])).logits
        self.classifier.move("cpu")  # the memory is the training's
        accuracy = n_way_accuracy(logits, np.repeat(target, decoded.shape[1]), self.settings.num_ways)
        return accuracy.reshape(decoded.shape[:2]).mean(axis=0)

    def _pairs(
        self, metric: str, decoded: np.ndarray, stimuli: np.ndarray, device: torch.device
    ) -> dict[str, np.ndarray]:
        """The metric of each picture and its stimulus, and pairwise identification by it: [k] each."""
        weights, larger = self.settings.lpips_weights, LARGER_IS_CLOSER[metric]
        values, identified = [], []
        for sample in np.moveaxis(decoded, 1, 0):
            matrix = similarity_matrix(sample, stimuli, metric, device=device, lpips_weights=weights)  # [n n]
            values.append(np.diagonal(matrix).mean())
            identified.append(identification_from_matrix(matrix, larger_is_closer=larger).mean())
        return {metric: np.array(values), f"pairwise_{metric}": np.array(identified)}

    def _classifier(self, required: bool) -> Classifier | None:
        settings = self.settings
        if settings.classifier == "none" and not required:
            return None
        try:
            classifier = load_classifier(settings.classifier, settings.classifier_weights)
        except InputError as error:
            if required:
                needed = "needed: its weights or another watch.classifier, as the checkpoint is chosen by n-way scores"
                raise InputError(f"{error}; {needed}") from error
            log.warning("no n-way scores while training: %s", error)
            return None
        if not 2 <= settings.num_ways <= classifier.num_classes:
            found = f"setting watch.num_ways is {settings.num_ways}"
            raise InputError(f"{found}; needed: 2 to {classifier.num_classes}, the classes of {settings.classifier}")
        return classifier

    def _has(self, metric: str, needed: str | None) -> bool:
        """Whether the metric can be computed for pictures of this size, with the weights that are installed."""
        try:
            if metric == "lpips" and min(self.stimuli.shape[1:3]) < SMALLEST_FOR_LPIPS:
                raise InputError(f"lpips: pictures of {min(self.stimuli.shape[1:3])} pixels, needs 64 or more")
            similarity_matrix(self.stimuli[:1], self.stimuli[:1], metric, lpips_weights=self.settings.lpips_weights)
        except InputError as error:
            if needed == f"pairwise_{metric}":
                raise
            log.warning("no %s while training: %s", metric, error)
            return False
        return True


class DecodingWatch(EveryFewEpochs):
    """Decodes watched rows every `every_epochs` epochs and after the last, and logs their scores.

    `score` names what the weights are chosen by, larger is better; `take` hands it over once. Of several processes
    each decodes a share, and the first one scores.
    """

    def __init__(
        self, dataset: PairedDataset, scorer: Scorer, sampling: Sampling, *, every_epochs: int, seed: int, score: str
    ):
        super().__init__(every_epochs)
        self.dataset, self.scorer, self.sampling = dataset, scorer, sampling
        self.seed, self.score = seed, score
        self._new: float | None = None

    def take(self) -> float | None:
        """How good the weights are, if they were judged since this was asked last."""
        score, self._new = self._new, None
        return score

    def look(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        scores = self.decode_and_score(trainer, module, range(self.dataset.num_rows), self.sampling)
        self.log_scores(trainer, {name: float(values.mean()) for name, values in scores.items()})
        self._new = float(scores[self.score].mean()) if self.score in scores else None

    def decode_and_score(
        self, trainer: pl.Trainer, module: pl.LightningModule, rows: Sequence[int], sampling: Sampling
    ) -> dict[str, np.ndarray]:
        """Name -> [k] of each sample set, the same on every process."""
        decoded = decode_shared(trainer, module, self.dataset, rows, sampling, self.seed)
        scores = self.scorer(decoded, rows, module.device) if trainer.is_global_zero else {}
        return trainer.strategy.broadcast(scores)

    def log_scores(self, trainer: pl.Trainer, values: dict[str, float], suffix: str = "") -> None:
        """A row of metrics.csv and a point of each curve, at the step done last."""
        named = {f"val/{name}{suffix}": value for name, value in values.items()}
        for logger in trainer.loggers:
            logger.log_metrics(named | {"epoch": trainer.current_epoch}, step=trainer.global_step - 1)


class PublishedSelection(DecodingWatch):
    """The published rule, which chooses on the test set: best 50-way top-1 among the sample sets of all its stimuli.

    Every few epochs the first stimuli are decoded. Where the best of their sample sets exceeds a threshold all stimuli
    are decoded; at every 15th time, these alone. The weights are kept when the best of the full sample sets rose.
    Scores of the few are logged as val/..., those of all as val/..._full; `(max)` is the best of the sample sets.
    """

    def __init__(self, dataset: PairedDataset, scorer: Scorer, rule: SelectionRuleConfig, *, seed: int):
        sampling = Sampling(rule.num_samples, rule.sampler, rule.num_steps)
        super().__init__(dataset, scorer, sampling, every_epochs=rule.every_epochs, seed=seed, score=scorer.n_way)
        self.rule = rule
        self.full = Sampling(rule.full_samples, rule.sampler, rule.num_steps)

    def due(self, trainer: pl.Trainer) -> bool:
        return (trainer.current_epoch + 1) % self.every_epochs == 0

    def look(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        number = (trainer.current_epoch + 1) // self.every_epochs
        if number % self.rule.full_every != 0:
            first = range(min(self.rule.num_stimuli, self.dataset.num_rows))
            if self._best(trainer, module, first, self.sampling, "") <= self.rule.threshold:
                return
        self._new = self._best(trainer, module, range(self.dataset.num_rows), self.full, "_full")

    def _best(
        self, trainer: pl.Trainer, module: pl.LightningModule, rows: Sequence[int], sampling: Sampling, suffix: str
    ) -> float:
        """Logs the scores; returns the n-way score of the best sample set."""
        scores = self.decode_and_score(trainer, module, rows, sampling)
        best = float(scores[self.score].max())
        values = {name: float(each.mean()) for name, each in scores.items()}
        self.log_scores(trainer, values | {f"{self.score} (max)": best}, suffix)
        return best


def watch_stage_b(
    config: FinetuneLDMConfig, val: PairedDataset | None, test: PairedDataset
) -> tuple[list[pl.Callback], DecodingWatch | None]:
    """The callbacks that show Stage B at work, and the one among them that chooses the weights (None: the last).

    Held-out stimuli are watched, or test stimuli where none are held out, as in the published code. Raises InputError
    for settings by which nothing could be chosen.
    """
    grid = DecodedStimuli(
        val or test,
        every_epochs=config.trainer.figure_every_epochs if config.num_preview else 0,
        num_stimuli=config.num_preview,
        num_steps=config.preview_steps,
        seed=config.seed,
    )
    watch = _watch(config, val, test)
    callbacks: list[pl.Callback] = [grid] if watch is None else [grid, watch]
    return callbacks, None if config.selection == "last" else watch


def _watch(config: FinetuneLDMConfig, val: PairedDataset | None, test: PairedDataset) -> DecodingWatch | None:
    """What `selection` and `watch` ask for; None for `selection=last` with `watch.every_epochs=0`."""
    watch, seed = config.watch, config.seed
    if config.selection == "test":
        averages = _averages(test, None)
        return PublishedSelection(averages, Scorer(watch, averages.images, needed="n_way"), config.test_rule, seed=seed)
    if not watch.every_epochs:
        return None
    watched = _averages(test if val is None else val, watch.num_stimuli)
    scorer = Scorer(watch, watched.images, needed=watch.score if config.selection == "validation" else None)
    score = scorer.n_way if watch.score == "n_way" else watch.score
    choices = ["n_way", *(f"pairwise_{metric}" for metric in scorer.metrics)]
    if config.selection == "validation" and watch.score not in choices:
        raise InputError(f"setting watch.score is {watch.score!r}; needed: one of {', '.join(choices)}")
    sampling = Sampling(watch.num_samples, watch.sampler, watch.num_steps)
    return DecodingWatch(watched, scorer, sampling, every_epochs=watch.every_epochs, seed=seed, score=score)


def decode_shared(
    trainer: pl.Trainer,
    module: pl.LightningModule,
    dataset: PairedDataset,
    rows: Sequence[int],
    sampling: Sampling,
    seed: int,
) -> np.ndarray:
    """Pictures uint8 [n k h w 3] of rows of the data set, on every process, each of which decodes a share."""
    mine = list(rows)[trainer.global_rank :: trainer.world_size]
    part = decode_in_training(module, dataset, mine, sampling, seed) if mine else None
    if part is not None and trainer.world_size == 1:
        return part
    parts: list = [None] * trainer.world_size
    torch.distributed.all_gather_object(parts, part)
    first = parts[0]
    decoded = np.empty((len(rows), *first.shape[1:]), np.uint8)
    for rank, pictures in enumerate(parts):
        if pictures is not None:
            decoded[rank :: trainer.world_size] = pictures
    return decoded


def _averages(dataset: PairedDataset, num_stimuli: int | None) -> PairedDataset:
    """The first row of each stimulus, or `num_stimuli` of them, evenly spaced. Raises InputError for a single one."""
    rows = np.flatnonzero(dataset.repeat == 0)
    if num_stimuli is not None and num_stimuli < len(rows):
        rows = rows[np.linspace(0, len(rows) - 1, num_stimuli).astype(int)]
    if len(rows) < 2:
        raise InputError(f"watching the decoding: {len(rows)} stimulus, needs two or more; or watch.every_epochs=0")
    return dataset.subset(rows)
