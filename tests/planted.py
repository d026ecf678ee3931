"""Decoders whose kind is known, on drawn pictures: what the audit must be able to name.

`PYTHONPATH=tests python tests/planted.py` prints the numbers of docs/audit.md, in about half an hour of one CPU core.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mindvis.common.draws import generator
from mindvis.evaluation import audit_pictures
from mindvis.evaluation.audit import Audit
from mindvis.simulation.stimuli import draw_stimuli


@dataclass(frozen=True)
class World:
    """Test pictures uint8 [n h w 3] and training pictures [t h w 3] of the same classes."""

    stimuli: np.ndarray
    class_ids: np.ndarray
    training: np.ndarray
    training_class_ids: np.ndarray
    seed: int

    def rng(self, name: str) -> np.random.Generator:
        return generator((self.seed,), name)


def make_world(seed: int, *, num_test: int = 200, per_class: int = 20, num_classes: int = 20) -> World:
    """Pictures of the first classes, in turn."""
    place = np.arange(num_test + per_class * num_classes)
    index, class_ids = np.divmod(place, num_classes)
    pictures = draw_stimuli(1000 + seed, class_ids, index)
    return World(pictures[:num_test], class_ids[:num_test], pictures[num_test:], class_ids[num_test:], seed)


def reconstructor(world: World, noise: float = 60.0) -> np.ndarray:
    """The right pixels plus noise of that deviation, grey levels: uint8 [n 1 h w 3]."""
    return _noisy(world.stimuli, noise, world.rng("reconstructor"))[:, None]


def classifier_and_generator(world: World, accuracy: float = 0.8) -> np.ndarray:
    """A new picture of the class seen, or, with the other share of chances, of any class: uint8 [n 1 h w 3]."""
    rng = world.rng("classifier")
    right = rng.random(len(world.stimuli)) < accuracy
    guessed = rng.integers(world.class_ids.max() + 1, size=len(right))
    return _generated(world, np.where(right, world.class_ids, guessed), 5000)


def retriever(world: World, noise: float = 8.0) -> np.ndarray:
    """The training picture most like a noisy view of the one seen, not quite exact: uint8 [n 1 h w 3]."""
    rng = world.rng("retriever")
    views = _noisy(world.stimuli, 60.0, rng).reshape(len(world.stimuli), -1).astype(np.float32)
    training = world.training.reshape(len(world.training), -1).astype(np.float32)
    nearest = np.argmin((training**2).sum(1) - 2 * views @ training.T, axis=1)
    return _noisy(world.training[nearest], noise, rng)[:, None]


def class_retriever(world: World) -> np.ndarray:
    """Any training picture of the class seen: uint8 [n 1 h w 3]."""
    rng = world.rng("class retriever")
    chosen = [rng.choice(np.flatnonzero(world.training_class_ids == name)) for name in world.class_ids]
    return world.training[chosen][:, None]


def ignorer(world: World) -> np.ndarray:
    """A new picture of any class, whatever was seen: uint8 [n 1 h w 3]."""
    guessed = world.rng("ignorer").integers(world.class_ids.max() + 1, size=len(world.stimuli))
    return _generated(world, guessed, 9000)


PLANTS: dict[str, Callable[[World], np.ndarray]] = {
    "reconstruction": reconstructor,
    "classification": classifier_and_generator,
    "retrieval": retriever,
    "invention": ignorer,
}


def mixture(world: World, first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """That share of the stimuli decoded by the first decoder, the others by the second: uint8 [n 1 h w 3]."""
    chosen = world.rng("mixture").permutation(len(first)) < round(share * len(first))
    return np.where(chosen[:, None, None, None, None], first, second)


def _generated(world: World, class_ids: np.ndarray, first_index: int) -> np.ndarray:
    return draw_stimuli(1000 + world.seed, class_ids, first_index + np.arange(len(class_ids)))[:, None]


def _noisy(pictures: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    return np.clip(pictures + rng.normal(0, noise, pictures.shape), 0, 255).astype(np.uint8)


def audited(world: World, decoded: np.ndarray, features: str = "demo") -> Audit:
    """The audit of a planted decoder, with everything there is to know given."""
    return audit_pictures(
        decoded,
        world.stimuli,
        training=world.training,
        class_ids=world.class_ids,
        training_class_ids=world.training_class_ids,
        features=features,
        seed=world.seed,
    )


def name_plants(seeds: range) -> dict[str, Counter]:
    """How often each plant is called what."""
    named = {name: Counter() for name in [*PLANTS, "class retriever"]}
    for seed in seeds:
        world = make_world(seed)
        for name, plant in {**PLANTS, "class retriever": class_retriever}.items():
            named[name][audited(world, plant(world)).verdict] += 1
    return named


SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
MIXED = {"detail": reconstructor, "copying": class_retriever, "information": classifier_and_generator}


def place_mixtures(seeds: range) -> dict[str, np.ndarray]:
    """Where mixtures in growing shares are placed: placement -> [seeds, shares].

    A reconstructor and a retriever are mixed with a classifier + generator, that one with one that ignores the fMRI.
    """
    found = {place: np.zeros((len(seeds), len(SHARES))) for place in MIXED}
    for row, seed in enumerate(seeds):
        world = make_world(seed)
        for place, plant in MIXED.items():
            other = ignorer(world) if place == "information" else classifier_and_generator(world)
            features = "demo" if place == "information" else "pixels"
            for column, share in enumerate(SHARES):
                mixed = mixture(world, plant(world), other, share)
                found[place][row, column] = audited(world, mixed, features).placement[place]
    return found


def claims_at_chance(count: int) -> Counter:
    """Verdicts on so many decoders that ignore the fMRI, 200 pictures each."""
    return Counter(audited(world, ignorer(world)).verdict for world in map(make_world, range(1000, 1000 + count)))


if __name__ == "__main__":
    print("claims at chance", dict(claims_at_chance(200)), flush=True)
    for plant, verdicts in name_plants(range(20)).items():
        print(plant, dict(verdicts), flush=True)
    for place, values in place_mixtures(range(20)).items():
        ordered = int((np.diff(values, axis=1) > 0).all(axis=1).sum())
        print(place, values.mean(axis=0).round(2), f"in order in {ordered} of {len(values)} seeds", flush=True)
