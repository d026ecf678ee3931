"""The simulated visual cortex and the experiment written in the published layouts."""

import json
from dataclasses import replace

import numpy as np
import pytest
from script_runner import run

from mindvis.common.errors import InputError
from mindvis.data import load_god, load_hcp, load_npz
from mindvis.simulation.cortex import (
    AREAS,
    GRID,
    NUM_ORIENTATIONS,
    RECEPTIVE_FIELD,
    _receptive_fields,
    area_responses,
    correlate,
    gabor_energy,
    picture_features,
    surfaces,
)
from mindvis.simulation.experiment import (
    PROTOCOLS,
    Experiment,
    Protocol,
    draw_experiment,
    haemodynamic_response,
    resting_run,
    trial_noise,
    view,
    voxel_snr,
)
from mindvis.simulation.simulate import simulate
from mindvis.simulation.stimuli import CLASS_NAMES, draw_stimuli

SMALL = {"V1": 24, "V2": 20, "V3": 16, "V4": 14, "LOC": 20, "FFA": 10, "PPA": 10}


def tiny(**changes) -> Experiment:
    settings = {"seed": 3, "num_subjects": 1, "train_per_class": 2, "num_test": 5, "voxels": SMALL}
    return Experiment(**settings | {"num_resting": 1, "num_frames": 60} | changes)


def grating(angle: float, cycles: float) -> np.ndarray:
    """Sinusoidal grating whose brightness changes along `angle`: uint8 [1 64 64 3]."""
    x, y = np.meshgrid(*2 * [(np.arange(64) + 0.5) / 64])
    wave = np.sin(2 * np.pi * cycles * (x * np.cos(angle) + y * np.sin(angle)))
    return np.repeat((127.5 + 100 * wave)[None, :, :, None], 3, axis=3).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("simulated") / "data"
    simulate(out, tiny())
    return out


@pytest.mark.parametrize("orientation", range(NUM_ORIENTATIONS))
def test_gabor_energy_finds_orientation_and_frequency(orientation):
    """A grating drives the channel of its own orientation and frequency most."""
    energy = gabor_energy(grating(np.pi * orientation / NUM_ORIENTATIONS, 6.0)).mean(axis=(0, 2, 3))
    assert energy.argmax() == NUM_ORIENTATIONS + orientation


def test_gabor_energy_ignores_phase_and_grows_with_contrast():
    """Energy is that of a quadrature pair: even over a grating, four times as much at twice the contrast."""
    image = grating(0.0, 6.0)
    energy = gabor_energy(image)[0, NUM_ORIENTATIONS]
    assert energy[2:-2, 2:-2].std() < 0.1 * energy.mean()
    weaker = gabor_energy(image // 2)[0, NUM_ORIENTATIONS]
    assert energy.mean() / weaker.mean() == pytest.approx(4, rel=0.05)


def test_surfaces_of_a_uniform_picture_are_nothing():
    """Colour is coded against the mean of the picture."""
    assert np.abs(surfaces(np.full((1, 64, 64, 3), (200, 30, 90), np.uint8))).max() < 1e-5


@pytest.mark.parametrize("area", RECEPTIVE_FIELD)
def test_receptive_fields_grow_with_eccentricity(area, rng):
    """Far from the centre of gaze fields are larger."""
    eccentricity, size = _centre_and_size(_receptive_fields(area, 300, rng))
    inner = eccentricity < 0.4
    assert size[~inner].mean() > size[inner].mean()


def test_receptive_fields_grow_from_area_to_area():
    """V1 has the smallest fields, V4 the largest."""
    mean = [_centre_and_size(_receptive_fields(a, 300, np.random.default_rng(0)))[1].mean() for a in RECEPTIVE_FIELD]
    assert mean == sorted(mean)


def test_left_hemisphere_sees_the_right_field(rng):
    """The first half of a retinotopic area has its fields to the right."""
    fields = _receptive_fields("V1", 100, rng)
    across = (fields.sum(axis=1) * np.linspace(-1, 1, GRID)).sum(axis=1)
    assert across[:50].mean() > 0.1 and across[50:].mean() < -0.1


def test_category_areas_prefer_their_categories(rng):
    """FFA answers animals more than vehicles, PPA the other way round."""
    class_ids = np.repeat([CLASS_NAMES.index("cat"), CLASS_NAMES.index("car")], 20)
    features = picture_features(draw_stimuli(0, class_ids, np.arange(40)), class_ids)
    ffa, ppa = (area_responses(features, area, 40, rng).mean(axis=1) for area in ("FFA", "PPA"))
    assert ffa[:20].mean() > ffa[20:].mean() and ppa[:20].mean() < ppa[20:].mean()


def test_noise_is_white_over_trials_and_correlated_along_the_cortex(rng):
    """Unit variance; neighbours alike, distant voxels and other areas less; trials independent."""
    noise = trial_noise(4000, [60, 40], rng)
    assert noise.var(axis=0).mean() == pytest.approx(1, abs=0.02)
    near, far, other = (np.mean(noise[:, 10] * noise[:, 10 + d]) for d in (1, 45, 70))
    assert near > far + 0.2 and far > other + 0.05 and abs(other) < 0.06
    assert abs(np.mean(noise[1:] * noise[:-1])) < 0.02


def test_correlation_falls_exponentially(rng):
    """The autoregression has correlation exp(-d / length) at distance d."""
    noise = correlate(rng.standard_normal((20000, 12)).astype(np.float32), 5.0)
    found = np.corrcoef(noise.T)[0]
    np.testing.assert_allclose(found, np.exp(-np.arange(12) / 5), atol=0.03)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_snr_is_that_of_the_preset(name, rng):
    """The mean over voxels is exact, and voxels differ."""
    snr = voxel_snr(500, PROTOCOLS[name].snr, rng)
    assert snr.mean() == pytest.approx(PROTOCOLS[name].snr, rel=1e-5)
    assert snr.max() > 3 * snr.min() > 0
    assert PROTOCOLS["god"].snr == pytest.approx(0.1)


def test_measured_snr_agrees_with_the_setting():
    """Signal over noise variance of the single trials, found from repeats alone, is what was asked for."""
    experiment = tiny(num_test=24, protocol=Protocol(snr=0.5, train_repeats=1, test_repeats=40))
    viewing = view(experiment, draw_experiment(experiment), 1)
    trials = viewing.trials.reshape(24, 40, -1)
    noise = trials.var(axis=1, ddof=1).mean(axis=0)
    signal = trials.mean(axis=1).var(axis=0, ddof=1) - noise / 40
    assert (signal / noise).mean() == pytest.approx(0.5, rel=0.25)


def test_haemodynamic_response_peaks_at_five_seconds():
    """Peak near 5 s, undershoot after it."""
    response = haemodynamic_response(0.1)
    assert response.argmax() * 0.1 == pytest.approx(5, abs=0.3)
    assert response[120:].min() < 0


def test_resting_run_is_slow_and_scaled(rng):
    """Frames follow each other smoothly in time; every voxel has mean 0 and variance 1."""
    run = resting_run(rng.standard_normal((20, 30)), [30], num_frames=300, t_r=0.72, rng=rng)
    assert run.shape == (300, 30) and run.dtype == np.float32
    np.testing.assert_allclose(run.std(axis=0), 1, atol=1e-3)
    assert np.mean(run[1:] * run[:-1]) > 0.9


def test_ordinary_loaders_read_it(folder):
    """GOD and HCP loaders take the files as they are; pictures and classes belong together."""
    train, test = load_god(folder / "Kamitani" / "npz", ["sbj_1"])
    num_classes = len(CLASS_NAMES)
    assert len(train.fmri) == 2 * num_classes and len(test.fmri) == 5
    assert list(train.class_ids[: num_classes + 1]) == [*range(num_classes), 0]
    np.testing.assert_array_equal(train.images[num_classes + 1], draw_stimuli(3, [1], [1])[0])
    np.testing.assert_array_equal(test.images[4], draw_stimuli(3, [4], [2])[0])
    windows = load_hcp(folder / "HCP" / "npz", cache_dir=folder / "cache").fmri
    assert len(windows) == 6 and np.isfinite(windows).all()


def test_single_trials_average_to_the_test_rows(folder):
    """arr_1 lies image by image, and its averages are arr_2."""
    with np.load(folder / "Kamitani" / "npz" / "sbj_1.npz") as npz:
        trials, averages = npz["arr_1"], npz["arr_2"]
        np.testing.assert_array_equal(npz["arr_4"], np.repeat(np.arange(5), len(trials) // 5))
        np.testing.assert_allclose(trials.reshape(5, -1, trials.shape[1]).mean(axis=1), averages, atol=1e-5)
        np.testing.assert_allclose(npz["arr_0"].mean(axis=0), 0, atol=1e-4)
        np.testing.assert_allclose(npz["arr_0"].std(axis=0), 1, atol=1e-4)


def test_regions_are_made_of_areas(folder):
    """VC holds every area, LVC the early ones, HVC the object areas; areas do not overlap."""
    with np.load(folder / "Kamitani" / "npz" / "sbj_1.npz") as npz:
        assert sum(npz[area].astype(int) for area in AREAS).max() == 1
        np.testing.assert_array_equal(npz["VC"], np.any([npz[area] for area in AREAS], axis=0))
        np.testing.assert_array_equal(npz["LVC"], npz["V1"] | npz["V2"] | npz["V3"])
        np.testing.assert_array_equal(npz["HVC"], npz["LOC"] | npz["FFA"] | npz["PPA"])


def test_same_seed_gives_the_same_bytes(folder, tmp_path):
    """Every file is reproduced exactly; another seed gives other responses."""
    simulate(tmp_path / "again", tiny())
    simulate(tmp_path / "other", tiny(seed=4))
    files = [path.relative_to(folder) for path in sorted(folder.rglob("*.*")) if "cache" not in path.parts]
    assert len(files) >= 6
    for file in files:
        assert (tmp_path / "again" / file).read_bytes() == (folder / file).read_bytes(), file
    name = "Kamitani/npz/sbj_1.npz"
    assert (tmp_path / "other" / name).read_bytes() != (folder / name).read_bytes()


def test_a_subject_does_not_depend_on_the_others(folder, tmp_path):
    """Subject 1 is the same alone and in company, and is not subject 2."""
    simulate(tmp_path / "two", tiny(num_subjects=2))
    root = tmp_path / "two" / "Kamitani" / "npz"
    assert (root / "sbj_1.npz").read_bytes() == (folder / "Kamitani" / "npz" / "sbj_1.npz").read_bytes()
    with np.load(root / "sbj_1.npz") as one, np.load(root / "sbj_2.npz") as two:
        assert one["arr_0"].shape != two["arr_0"].shape or not np.array_equal(one["arr_0"], two["arr_0"])


def test_an_earlier_simulation_is_replaced_and_nothing_else(folder, tmp_path):
    """A folder with other things in it is refused and left alone."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="own: is in use"):
        simulate(tmp_path / "own", tiny())
    assert (tmp_path / "own" / "thesis.txt").read_text() == "precious"
    simulate(tmp_path / "new", tiny())
    simulate(tmp_path / "new", tiny(num_resting=0))
    assert not (tmp_path / "new" / "HCP").exists()
    assert json.loads((tmp_path / "new" / "simulation.json").read_text())["num_resting"] == 0


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"num_subjects": 0}, "num_subjects is 0"),
        ({"voxels": SMALL | {"V2": 0}}, "voxels.V2 is 0"),
        ({"voxels": SMALL | {"V9": 4}}, "voxels.V9: no such area"),
        ({"protocol": Protocol(snr=-1.0, train_repeats=1, test_repeats=1)}, "protocol.snr is -1"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_impossible_experiments_are_refused(changes, named):
    """The setting and the value found are named."""
    with pytest.raises(InputError, match=named):
        tiny(**changes)


def _centre_and_size(fields: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each field's centre from the centre of gaze, and its deviation: [v], [v]."""
    x, y = np.meshgrid(*2 * [(np.arange(GRID) + 0.5) / GRID * 2 - 1])
    centre = [(fields * axis).sum(axis=(1, 2)) for axis in (x, y)]
    spread = [(fields * axis**2).sum(axis=(1, 2)) - c**2 for axis, c in zip((x, y), centre, strict=True)]
    return np.hypot(*centre), np.sqrt(sum(spread))


@pytest.fixture(scope="module")
def unseen_folder(tmp_path_factory):
    """Three unseen classes with eight pictures each, and two imagery trials a test picture."""
    out = tmp_path_factory.mktemp("unseen") / "data"
    simulate(out, tiny(protocol=replace(PROTOCOLS["demo"], unseen_classes=3, imagery_repeats=2)))
    return out


def test_unseen_classes_are_tested_but_never_trained_on(unseen_folder):
    """Test pictures of trained classes come first, those of the unseen ones follow; the loaders know both."""
    train, test = load_god(unseen_folder / "Kamitani" / "npz", ["sbj_1"])
    unseen = tiny(protocol=replace(PROTOCOLS["demo"], unseen_classes=3)).unseen().tolist()
    assert len(unseen) == 3 and not set(unseen) & set(train.class_ids)
    assert set(test.class_ids[:5]) <= set(train.class_ids) and sorted(test.class_ids[5:]) == sorted(unseen * 8)
    shown = {picture.tobytes() for picture in [*train.images, *test.images]}
    assert len(shown) == len(train.images) + len(test.images)


def test_the_summary_has_a_line_for_unseen_classes(unseen_folder, tmp_path):
    """The first score is that of the trained classes, as without unseen ones; ridge is judged by these alone."""
    root = unseen_folder / "Kamitani" / "npz"
    train, test = load_god(root, ["sbj_1"])
    known = np.isin(test.class_ids, train.class_ids)
    true = test.images
    blank = np.zeros_like(true)
    data = {"name": "god", "root": str(root), "subjects": ["sbj_1"]}
    about = {"data": {"settings": data}, "patch_size": 16, "settings": {}}
    for folder, decoded in (
        (tmp_path, np.where(known[:, None, None, None], true, blank)),
        (tmp_path / "shuffled", blank),
    ):
        folder.mkdir(exist_ok=True)
        arrays = {"stimuli": true, "stimulus_ids": np.arange(len(true)), "class_ids": test.class_ids}
        np.savez(folder / "decoded.npz", decoded=decoded[:, None], **arrays)
        (folder / "generate.json").write_text(json.dumps(about))
    settings = [f"decoded={tmp_path}", "classifier=demo", "num_ways=[10]", "top_k=[1]", "num_bootstrap=100"]
    settings += ["nsd_suite=false", "audit=false", "metrics=[pcc,ssim]", "fid=[]", "logging.wandb=disabled"]
    assert run("evaluate", *settings).status == 0
    outcome = run("demo_summary", *settings)
    assert outcome.status == 0, outcome.err
    *_, first, second = outcome.out.splitlines()
    report = json.loads((tmp_path / "report.json").read_text())
    main = [each for each in report["by_training"] if (each["set"], each["name"]) == ("decoded", report["main"])]
    scores = {each["classes"]: each for each in main}
    assert [stage["command"] for stage in report["stages"][:2]] == [None, None]  # folders from before it was kept
    assert scores["trained"]["n"] == 5 and scores["unseen"]["n"] == 24
    assert first.startswith(f"demo: 10-way top-1 {scores['trained']['value']:.2f} [")
    assert second.startswith(f"unseen classes: 10-way top-1 {scores['unseen']['value']:.2f} [")
    assert scores["trained"]["value"] > 0.9 > scores["unseen"]["value"] + 0.5


def test_imagined_pictures_leave_early_areas_silent(unseen_folder):
    """Own data: seen training rows, imagined test rows; averages vary with the picture in LOC, in V1 as noise does."""
    train, test, _ = load_npz(unseen_folder / "Imagery" / "sbj_1.npz", roi="VC")
    assert test.num_rows == 5 + 24 and train.num_rows == 2 * 21
    strong = tiny(protocol=Protocol(snr=5.0, train_repeats=1, test_repeats=1, imagery_repeats=40), num_test=24)
    viewing = view(strong, draw_experiment(strong), 1)
    imagined = viewing.imagery.reshape(24, 40, -1).mean(axis=1)
    area = np.repeat(AREAS, viewing.area_sizes)
    alike = [np.corrcoef(imagined[:, v], viewing.averages[:, v])[0, 1] for v in range(imagined.shape[1])]
    assert np.mean(np.array(alike)[area == "LOC"]) > 0.7 and abs(np.mean(np.array(alike)[area == "V1"])) < 0.2


def test_imagery_changes_nothing_else(folder, unseen_folder, tmp_path):
    """Its noise has a stream of its own."""
    simulate(tmp_path / "data", tiny(protocol=replace(PROTOCOLS["demo"], imagery_repeats=2)))
    name = "Kamitani/npz/sbj_1.npz"
    assert (tmp_path / "data" / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.parametrize("changes", [{"unseen_classes": 24}, {"unseen_classes": -1}, {"imagery_repeats": -1}])
def test_impossible_protocols_are_refused(changes):
    """No class left to train on, or fewer than none."""
    with pytest.raises(InputError, match=next(iter(changes))):
        tiny(protocol=replace(PROTOCOLS["demo"], **changes))
