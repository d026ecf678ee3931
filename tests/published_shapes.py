"""GOD and BOLD5000 files with the published numbers of rows, small in voxels and pixels."""

import json
from pathlib import Path

import numpy as np

from mindvis.data.bold5000 import PRESENTATIONS, REGIONS, REPEATED, RESPONSE_FILE, RESPONSES, STIMULI

VOXELS = 40  # of a GOD subject, 24 of them in VC
SIDE = 8  # pixels
REGION_VOXELS = 3  # of a BOLD5000 region and hemisphere
ONCE, REPEATS = 4803, [4] * 112 + [3]  # pictures of BOLD5000 shown once; how often each of the others was shown
COUNTS = {"train": 1200, "test": 50}


def write_god(root: Path, rng: np.random.Generator, subjects=("sbj_3",)) -> Path:
    """1200 training rows of 150 classes x 8, 50 averages of 50 other classes, 1750 single trials."""
    root.mkdir(parents=True)
    for subject in subjects:
        arrays = {
            f"arr_{i}": rng.standard_normal((rows, VOXELS), np.float32) for i, rows in enumerate((1200, 1750, 50))
        }
        masks = {"VC": np.arange(VOXELS) < 24, "V1": np.arange(VOXELS) < 8}
        np.savez(root / f"{subject}.npz", **arrays, arr_3=np.arange(1200), **masks)
    images = {f"{kind}_images": rng.integers(0, 256, (n, SIDE, SIDE, 3), np.uint8) for kind, n in COUNTS.items()}
    np.savez(root / "images_256.npz", **images)
    wnids = {"train": np.repeat(np.arange(150), 8), "test": np.arange(150, 200)}
    names = {"train": "imagenet_training_label.csv", "test": "imagenet_testing_label.csv"}
    for kind, classes in wnids.items():
        lines = [f"{10_000_000 + number}.{i:06d},1\n" for i, number in enumerate(classes)]
        (root / names[kind]).write_text("".join(lines))
    index = {str(i): [f"n{10_000_000 + i}", f"class_{i}"] for i in range(200)}
    (root / "imagenet_class_index.json").write_text(json.dumps(index))
    return root


def write_bold5000(root: Path, rng: np.random.Generator) -> Path:
    """CSI1: 5254 trials in 15 sessions, of 4803 pictures shown once and 113 repeated ones."""
    once = [f"scene{i:04d}.jpg" for i in range(ONCE)]
    repeated = [f"repeated{i:03d}.jpg" for i in range(len(REPEATS))]
    trials = rng.permutation([*once, *np.repeat(repeated, REPEATS)])
    for number, part in enumerate(np.array_split(trials, 15), start=1):
        run = root / PRESENTATIONS / "CSI1" / f"CSI1_sess{number:02d}" / f"CSI1_sess{number:02d}_run01.txt"
        run.parent.mkdir(parents=True)
        run.write_text("\n".join(part) + "\n")
    (root / STIMULI).mkdir(parents=True)
    (root / REPEATED).write_text("\n".join(repeated) + "\n")
    (root / RESPONSES).mkdir(parents=True)
    for region in [side + region for region in REGIONS for side in ("LH", "RH")]:
        file = RESPONSE_FILE.format(subject="CSI1", region=region)
        np.save(root / RESPONSES / file, rng.standard_normal((len(trials), REGION_VOXELS)))
    pictures = rng.integers(0, 256, (len(once) + len(repeated), SIDE, SIDE, 3), np.uint8)
    pickled = dict(zip([*once, *repeated], pictures, strict=True))
    np.save(root / STIMULI / "img_dict.npy", pickled, allow_pickle=True)
    return root
