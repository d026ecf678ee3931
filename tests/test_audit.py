"""The audit names planted decoders, and says what it cannot tell."""

import json
import subprocess
import sys

import numpy as np
import pytest
from planted import PLANTS, class_retriever, classifier_and_generator, ignorer, make_world, mixture, reconstructor

from mindvis.common.errors import InputError
from mindvis.evaluation import audit_pictures
from mindvis.evaluation.audit import SCHEMA, json_text
from mindvis.evaluation.audit_verdict import VERDICTS, Finding, judge


@pytest.fixture(scope="module")
def world():
    """200 test pictures of 20 classes, 400 training pictures."""
    return make_world(0)


def audit(world, decoded, **changes):
    given = {
        "training": world.training,
        "class_ids": world.class_ids,
        "training_class_ids": world.training_class_ids,
        "features": "pixels",
    }
    return audit_pictures(decoded, world.stimuli, **(given | changes))


def test_every_tested_figure_says_what_accident_gives(world):
    """A p belongs to a level that the figure is compared with: `above` and `below` need both."""
    found = audit(world, PLANTS["retrieval"](world))
    tested = [finding for finding in found.evidence.values() if finding.p is not None]
    assert tested and all(finding.by_accident is not None for finding in tested)


@pytest.mark.parametrize("name", PLANTS)
def test_verdict_names_the_plant(world, name):
    """Each of the four kinds by its name, with its reasons."""
    found = audit(world, PLANTS[name](world), features="demo")
    assert found.verdict == name, found.steps
    assert found.steps and found.evidence["own_against_other/pixels"].n == 200


def test_any_training_picture_of_the_class_is_retrieval(world):
    """Copies are named as such though the picture within its class is not identified."""
    found = audit(world, class_retriever(world))
    assert found.verdict == "retrieval" and found.evidence["within_class/pixels"].p > 0.05


@pytest.mark.parametrize(("place", "plant"), [("detail", reconstructor), ("copying", class_retriever)])
def test_mixtures_lie_in_order(world, place, plant):
    """Mixed with a classifier in growing proportion, the share that was planted grows."""
    other = classifier_and_generator(world)
    shares = [0.0, 0.3, 0.6, 1.0]
    found = [audit(world, mixture(world, plant(world), other, share)).placement[place] for share in shares]
    assert found == sorted(found) and found[-1] - found[0] > 0.7


def test_what_is_missing_leaves_it_undecided(world):
    """Without training pictures no retrieval, without classes no class: the last step says so."""
    decoded = reconstructor(world)
    blind = audit(world, decoded, training=None, training_class_ids=None)
    assert blind.verdict == "undecided" and "no training pictures" in blind.steps[-1]
    nameless = audit(world, decoded, class_ids=None, training_class_ids=None)
    assert nameless.verdict == "undecided" and "class" in nameless.steps[-1]
    assert audit(world, ignorer(world), training=None, training_class_ids=None).verdict == "invention"


def test_a_control_that_is_as_good_forbids_a_claim(world):
    """Decoded pictures that are no better than pictures of deranged fMRI carry no proven information."""
    decoded = reconstructor(world)
    assert audit(world, decoded, controls={"shuffled": np.roll(decoded, 1, axis=0)}).verdict == "reconstruction"
    as_good = audit(world, decoded, controls={"shuffled": decoded})
    difference = as_good.evidence["minus_control/pixels/shuffled"]
    assert as_good.verdict == "undecided" and difference.value == 0 and difference.p == 1


def test_test_pictures_among_the_training_pictures_are_left_out(world):
    """Stored a little differently or not, they are found; where all are, nothing is told."""
    nearly = np.clip(world.stimuli[:40].astype(int) + 1, 0, 255).astype(np.uint8)
    found = audit(world, reconstructor(world), training=np.concatenate([nearly, world.training[40:]]))
    assert found.settings["num_leaked"] == 40 and "40 of 200 test pictures are training" in found.caveats[0]
    assert found.evidence["own_against_other/pixels"].n == 160
    seen = audit(world, reconstructor(world), training=world.stimuli, training_class_ids=world.class_ids)
    assert seen.verdict == "undecided" and seen.steps[0].startswith("200 of 200 test pictures are training pictures")


def test_rows_of_one_picture_count_once(world):
    """Two rows (subjects, repeats) that show the same picture are no 'others' of each other."""
    decoded = reconstructor(world)
    once = audit(world, decoded)
    twice = audit_pictures(
        np.concatenate([decoded, decoded]),
        np.concatenate([world.stimuli, world.stimuli]),
        training=world.training,
        class_ids=np.tile(world.class_ids, 2),
        features="pixels",
        subjects=np.repeat(["s1", "s2"], 200),
    )
    for name in ("own_against_other/pixels", "within_class/pixels"):
        assert twice.evidence[name].value == pytest.approx(once.evidence[name].value)
    assert twice.settings["num_stimuli"] == 200


def test_placement_and_pixels_alone(world):
    """Features may be pixels only, or any function of pictures."""
    assert audit(world, reconstructor(world), features="pixels").settings["spaces"] == ["pixels"]

    def brightness(pictures):
        return pictures.mean(axis=(1, 3))

    found = audit(world, reconstructor(world), features=brightness)
    assert found.settings["spaces"] == ["pixels", "brightness"] and "within_class/brightness" in found.evidence


def test_json_follows_its_schema(world):
    """Plain JSON with nulls for what is not a number; the same twice."""
    found = audit(world, ignorer(world), exposure={"generator": "ImageNet"})
    text = json_text(found.as_dict())
    content = json.loads(text)
    assert content["schema"] == SCHEMA and content["verdict"] in VERDICTS
    assert content["exposure"] == {
        "generator": "ImageNet",
        "classifier": "not declared",
        "stage_a": "not declared",
    }
    assert set(content["evidence"]["copies"]) == {"value", "low", "high", "by_accident", "p", "p_holm", "d_prime", "n"}
    assert {len(values) for values in content["per_stimulus"].values()} == {200}
    assert text == json_text(audit(world, ignorer(world), exposure={"generator": "ImageNet"}).as_dict())


def test_exposure_of_what_is_not_known_is_refused(world):
    with pytest.raises(InputError, match="exposure: found 'generatr'; needed: generator, classifier, stage_a"):
        audit(world, ignorer(world), exposure={"generatr": "ImageNet"})


def pictures(*shape):
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoded": pictures(30, 16, 16)}, r"decoded: found uint8 \[30, 16, 16, 3\], need uint8 \[n k h w 3\]"),
        ({"decoded": pictures(30, 1, 8, 16)}, r"decoded: found \[30, 1, 8, 16, 3\] for stimuli"),
        ({"stimuli": pictures(30, 16, 16) / 255}, "stimuli: found float64"),
        ({"class_ids": [1, 2]}, "class_ids: found 2, need 30"),
        ({"training": pictures(5, 16, 16)}, "training: found 5 pictures"),
        ({"training": pictures(30, 16, 16), "training_class_ids": [1]}, "training_class_ids: found 1, need 30"),
        ({"controls": {"mean": pictures(30, 16, 16)}}, "control mean: found uint8"),
        ({"features": "resnet"}, "classifier: found 'resnet'"),
        ({"features": lambda batch: np.full((len(batch), 2), np.nan)}, "found NaN or infinity"),
        ({"stimuli": np.tile(pictures(1, 16, 16), (30, 1, 1, 1))}, "found 1 different picture"),
    ],
)
def test_arrays_that_do_not_fit(changes, message):
    """One line that names the array, what was found and what is needed."""
    given = {"decoded": pictures(30, 2, 16, 16), "stimuli": pictures(30, 16, 16), "features": "pixels"} | changes
    with pytest.raises(InputError, match=message) as error:
        audit_pictures(given.pop("decoded"), given.pop("stimuli"), **given)
    assert "\n" not in str(error.value)


def finding(name, value, low, high, p_holm=None):
    return Finding(name, value, low, high, 0.5, p_holm, p_holm, n=50)


def test_verdict_needs_more_than_one_figure():
    """A significant score alone is not a reconstruction; small effects and wide intervals are not claims."""
    clear = finding("own_against_other/pixels", 0.9, 0.85, 0.95, 0.001)
    few_copies = finding("copies", 0.0, 0.0, 0.02)
    evidence = {clear.name: clear, "copies": few_copies}
    assert judge(evidence, has_training=True)[0] == "undecided"
    faint = finding("within_class/pixels", 0.53, 0.51, 0.55, 0.01)
    assert judge(evidence | {faint.name: faint}, has_training=True)[0] == "classification"
    wide = finding("within_class/pixels", 0.6, 0.4, 0.8, 0.3)
    assert judge(evidence | {wide.name: wide}, has_training=True)[0] == "undecided"
    half = finding("copies", 0.5, 0.4, 0.6)
    assert judge({clear.name: clear, "copies": half}, has_training=True)[0] == "undecided"


def test_an_audit_needs_neither_lightning_nor_wandb_nor_nibabel():
    """A fresh interpreter audits arrays without importing them."""
    code = """
import sys
import numpy as np
from mindvis.evaluation import audit_pictures
pictures = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
audit_pictures(pictures[:20, None], pictures[:20], training=pictures[20:], features="demo")
print([name for name in ("pytorch_lightning", "lightning", "wandb", "nibabel") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
