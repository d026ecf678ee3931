"""Folders of pictures, presentation lists and responses for the tests of prepare_bold5000."""

from pathlib import Path

import numpy as np
from PIL import Image

STIMULI = "BOLD5000_Stimuli/Scene_Stimuli/Presented_Stimuli"
LISTS = "BOLD5000_Stimuli/Stimuli_Presentation_Lists"
REPEATED = "BOLD5000_Stimuli/Scene_Stimuli/repeated_stimuli_113_list.txt"
BETAS = "BOLD5000_GLMsingle_ROI_betas/py"
PICTURES = {
    "COCO": ["COCO_train2014_000000000001.jpg", "COCO_train2014_000000000002.jpg"],
    "ImageNet": ["n01440764_10.JPEG", "n01440764_11.JPEG"],
    "Scene": ["airport1.jpg", "zoo2.jpg"],
}
RUNS = {
    "CSI1": {
        "CSI1_sess01/CSI1_sess01_run01.txt": ["COCO_train2014_000000000001.jpg", "airport1.jpg", "n01440764_10.JPEG"],
        "CSI1_sess01/CSI1_sess01_run02.txt": ["rep_airport1.jpg", "COCO_train2014_000000000002.jpg"],
        "CSI1_sess02/CSI1_sess02_run01.txt": ["zoo2.jpg", "rep_airport1.jpg", "n01440764_11.JPEG"],
    },
    "CSI4": {"CSI4_sess01/CSI4_sess01_run01.txt": ["zoo2.jpg", "airport1.jpg", "n01440764_10.JPEG"]},
}
REGIONS = [side + region for region in ("EarlyVis", "LOC", "OPA", "PPA", "RSC") for side in ("LH", "RH")]


def responses(root, subject, region):
    return root / BETAS / f"{subject}_GLMbetas-TYPED-FITHRF-GLMDENOISE-RR_allses_{region}.npy"


def make_study(root: Path, rng: np.random.Generator) -> Path:
    """The published folders, with six pictures and two subjects."""
    for folder, names in PICTURES.items():
        for i, name in enumerate(names):
            path = root / STIMULI / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (20, 24 + i, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path, format="PNG")
    (root / REPEATED).write_text("airport1.jpg\n")
    (root / BETAS).mkdir(parents=True)
    for subject, runs in RUNS.items():
        for run, names in runs.items():
            (root / LISTS / subject / run).parent.mkdir(parents=True, exist_ok=True)
            (root / LISTS / subject / run).write_text("\n".join(names) + "\n")
        trials = sum(map(len, runs.values()))
        for region in REGIONS:
            np.save(responses(root, subject, region), rng.standard_normal((trials, 3)))
    return root
