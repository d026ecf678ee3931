"""scripts/prepare_betas.py on beta images (NIfTI and CIFTI, some made with nilearn) beside a naive reading."""

import nibabel as nib
import numpy as np
import pytest
from betas_files import AFFINE, GRID, ROWS, make_study, save_dscalars, save_nifti, write_table
from hcp_files import brain, labels_of, save_dlabel
from PIL import Image
from script_runner import assert_one_line, script

from mindvis.data.own import load_npz

main = script("prepare_betas")


@pytest.fixture
def study(tmp_path, rng):
    """The folder and its betas [n x y z]."""
    return tmp_path, make_study(tmp_path, rng)


def run(folder, *extra, source=("--mask", "mask.nii.gz"), betas="betas", table="trials.tsv"):
    given = [word if word.startswith("--") else str(folder / word) for word in source]
    own = ["--table", str(folder / table), "--stimuli", str(folder / "stimuli"), "--out", str(folder / "out/my.npz")]
    return main([str(folder / betas), *own, "--size", "8", *given, *extra])


def written(folder):
    with np.load(folder / "out/my.npz") as arrays:
        return dict(arrays)


def test_voxels_of_a_mask(study, capsys):
    """Rows in the order of the table, voxels in that of the volume, pictures once; a constant voxel is 0."""
    folder, betas = study
    assert run(folder) == 0
    arrays, mask = written(folder), np.zeros(GRID, bool)
    mask[1:3, 1:4] = True
    expected = np.stack([volume[mask] for volume in betas])
    expected[:, (betas[0][mask] == 5)] = 0
    np.testing.assert_array_equal(arrays["fmri"], expected)
    assert arrays["stimulus"].tolist() == [0, 1, 2, 1, 3, 0, 4]
    assert arrays["images"][:, 0, 0, 0].tolist() == [0, 10, 20, 30, 40]
    assert arrays["split"].tolist() == [split for _, _, split in ROWS]
    assert "train 3 test 3 val 1 trials of 5 pictures, mask 18, 1 bad voxels (zeros)" in capsys.readouterr().out
    assert [path.name for path in (folder / "out").iterdir()] == ["my.npz"]


def test_images_that_the_table_does_not_name_are_counted(study, capsys):
    """Nothing is left out in silence; a table in another case of letters is refused with the first file."""
    folder, betas = study
    save_nifti(folder / "betas" / "b7.nii.gz", betas[0])
    assert run(folder) == 0
    assert "passed over 1: images that the table does not name (b7.nii.gz)" in capsys.readouterr().out
    write_table(folder / "trials.tsv", [(name.upper(), *rest) for name, *rest in ROWS])
    assert run(folder) == 2
    assert "names 7 files that are not there" in capsys.readouterr().err


def test_the_chain_opens_it(study):
    """As any own data: averages of test pictures, regions by name."""
    folder, betas = study
    assert (
        run(folder, "--bad-voxels", "drop", source=("--label-image", "atlas.nii.gz", "--label-names", "atlas.txt")) == 0
    )
    train, test, val = load_npz(folder / "out/my.npz", roi="V2", patch_size=1, scale="none")
    assert (train.num_rows, test.num_rows, val.num_rows) == (3, 2, 1)
    voxels = np.zeros(GRID, bool)
    voxels[1, 2:] = True
    np.testing.assert_allclose(test.fmri[0, :-1], (betas[1][voxels] + betas[3][voxels]) / 2, rtol=1e-6)
    assert set(train.roi_masks) == {"V2"}


def test_volumes_of_one_image_subjects_and_classes(study):
    """A 4-D image as GLMsingle's results are saved, and the columns that may be there; separated by commas."""
    folder, betas = study
    save_nifti(folder / "betas/all.nii.gz", np.moveaxis(betas, 0, -1))
    header = ("onset", "Beta", "stimulus", "split", "volume", "participant_id", "class_id", "class_name")
    rows = [
        ("all", image, split, str(6 - i), f"sub-{i % 2}", str(i), f"c{i}") for i, (_, image, split) in enumerate(ROWS)
    ]
    rows[3], rows[5] = (*rows[3][:5], "1", "c1"), (*rows[5][:5], "0", "c0")
    write_table(folder / "trials.csv", rows, header=header, end=",")
    assert run(folder, table="trials.csv") == 0
    arrays, mask = written(folder), np.zeros(GRID, bool)
    mask[1:3, 1:4] = betas[0][1:3, 1:4] != 5
    np.testing.assert_array_equal(arrays["fmri"][:, arrays["fmri"][0] != 0], betas[::-1][:, mask])
    assert arrays["subject"].tolist() == [f"sub-{i % 2}" for i in range(7)]
    assert arrays["class_ids"].tolist() == [0, 1, 2, 1, 4, 0, 6] and arrays["class_names"][3] == "c1"


def test_regions_of_cifti_images(study, rng):
    """Grayordinates region by region, as those of resting-state fMRI are ordered."""
    folder, _ = study
    betas = rng.standard_normal((len(ROWS), len(brain()))).astype(np.float32)
    save_dscalars(folder, betas)
    save_dlabel(folder / "areas.dlabel.nii")
    write_table(folder / "cifti.tsv", suffix=".dscalar.nii")
    source = ("--parcellation", "areas.dlabel.nii")
    assert run(folder, "--rois", "V1", "V2", source=source, betas="cifti", table="cifti.tsv") == 0
    arrays, labels = written(folder), labels_of(brain())
    order = np.concatenate([np.flatnonzero(np.isin(labels, (1, 3))), np.flatnonzero(np.isin(labels, (2, 4)))])
    np.testing.assert_array_equal(arrays["fmri"], betas[:, order])
    assert arrays["roi_names"].tolist() == ["V1", "V2"]
    assert arrays["roi_masks"][0].sum() == np.isin(labels, (1, 3)).sum()


def test_images_made_with_nilearn(tmp_path, rng):
    """A first-level model with a regressor for each trial, its effects saved one by one: the way of the docs."""
    pytest.importorskip("nilearn", reason="nilearn is optional")
    import pandas as pd
    from nilearn.glm.first_level import FirstLevelModel

    trials = [("a", "train"), ("b", "train"), ("c", "test"), ("d", "test")]
    onsets = 6.0 + 12.0 * np.arange(len(trials))
    events = pd.DataFrame({"onset": onsets, "duration": 2.0, "trial_type": [name for name, _ in trials]})
    mask = nib.Nifti1Image(np.ones((3, 3, 3), np.uint8), AFFINE)
    series = nib.Nifti1Image(100 + rng.standard_normal((3, 3, 3, 30)).astype(np.float32), AFFINE)
    model = FirstLevelModel(t_r=2.0, mask_img=mask, hrf_model="glover", minimize_memory=True).fit(series, events)
    (tmp_path / "betas").mkdir()
    (tmp_path / "stimuli").mkdir()
    mask.to_filename(tmp_path / "mask.nii.gz")
    expected = []
    for name, _ in trials:
        effect = model.compute_contrast(name, output_type="effect_size")
        effect.to_filename(tmp_path / "betas" / f"{name}.nii.gz")
        expected.append(effect.get_fdata().astype(np.float32).ravel())
        Image.new("RGB", (9, 9)).save(tmp_path / "stimuli" / f"{name}.png")
    write_table(tmp_path / "trials.tsv", [(name, f"{name}.png", split) for name, split in trials])
    assert run(tmp_path) == 0
    np.testing.assert_allclose(written(tmp_path)["fmri"], expected, rtol=1e-6)


def table(**options):
    return lambda folder: write_table(folder / "trials.tsv", **options)


def with_row(*row):
    return table(rows=[row, *ROWS[1:]])


def volume(make, affine=AFFINE):
    def damage(folder):
        data = nib.load(folder / "betas/b3.nii.gz").get_fdata().astype(np.float32)
        save_nifti(folder / "betas/b3.nii.gz", make(data), affine)

    return damage


def cut(folder):
    path = folder / "betas/b3.nii.gz"
    path.write_bytes(path.read_bytes()[:-40])


MALFORMED = {
    "no_table": (lambda f: (f / "trials.tsv").unlink(), "trials.tsv: no such file"),
    "empty_table": (lambda f: (f / "trials.tsv").write_text("onset\n"), "needs a header and a line for each trial"),
    "no_stimulus_column": (table(header=("onset", "beta_file", "what", "split")), "no column 'stim_file', has onset"),
    "no_split_column": (table(header=("onset", "beta_file", "stim_file", "part")), "no column 'split'"),
    "ragged": (lambda f: (f / "trials.tsv").open("a").write("1\tb9\n"), "line 9 has 2 columns, the header has 4"),
    "unknown_split": (with_row("b0", "a.png", "dev"), "line 2: split is 'dev', needs one of train"),
    "no_value": (with_row("b0", "n/a", "train"), "line 2: no stim_file, needs one"),
    "beta_absent": (with_row("b9", "a.png", "train"), "names 1 files that are not there"),
    "stimulus_absent": (with_row("b0", "z.png", "train"), "z.png first"),
    "trial_twice": (with_row("b1", "a.png", "train"), "7 trials of 6 different images"),
    "other_grid": (volume(lambda data: data[:3]), "grid (3, 5, 3) is not that of"),
    "other_affine": (volume(lambda data: data, AFFINE * 1.5), "needs the same shape and affine"),
    "series": (volume(lambda data: np.stack([data, data], -1)), "needs a NIfTI of 3 axes"),
    "complex": (
        lambda f: save_nifti(f / "betas/b3.nii.gz", np.ones(GRID, np.complex64)),
        "b3.nii.gz: values of type complex64; needs real numbers",
    ),
    "complex_mask": (lambda f: save_nifti(f / "mask.nii.gz", np.ones(GRID, np.complex64)), "mask.nii.gz: values of"),
    "no_image": (lambda f: (f / "betas/b3.nii.gz").write_bytes(b"x" * 400), "b3.nii.gz: not a readable NIfTI"),
    "cut_image": (cut, "b3.nii.gz"),
    "no_picture": (lambda f: (f / "stimuli/c.png").write_bytes(b"x"), "c.png: not a readable picture"),
    "no_mask": (lambda f: (f / "mask.nii.gz").unlink(), "mask.nii.gz: no such file"),
    "empty_mask": (lambda f: save_nifti(f / "mask.nii.gz", np.zeros(GRID, np.uint8)), "selects none of 60 voxels"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed(study, capsys, case):
    """One line, status 2, nothing left behind."""
    folder, _ = study
    damage, message = MALFORMED[case]
    damage(folder)
    assert run(folder) == 2
    assert_one_line(capsys, message)
    assert not list(folder.glob("out/*")) and not list(folder.glob("out/.*"))


@pytest.mark.parametrize(
    ("extra", "source", "message"),
    [
        ((), ("--mask", "mask.nii.gz", "--label-image", "atlas.nii.gz"), "needs one of them"),
        ((), ("--label-image", "atlas.nii.gz"), "go together"),
        (("--rois", "V9"), ("--label-image", "atlas.nii.gz", "--label-names", "atlas.txt"), "no region 'V9'"),
        (("--bad-voxels", "fail"), ("--mask", "mask.nii.gz"), "1 of 18 voxels are constant"),
        ((), (), "no CIFTI file; needs beta images"),
    ],
)
def test_options_that_do_not_fit(study, capsys, extra, source, message):
    """They say what goes together."""
    assert run(study[0], *extra, source=source) == 2
    assert_one_line(capsys, message)
