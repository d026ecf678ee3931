"""Report on `HCP/npz`."""

import hashlib
from pathlib import Path

from mindvis.common.errors import InputError
from mindvis.common.files import sha256
from mindvis.common.progress import Progress
from mindvis.prepare.check import Report, Settings, count_constant
from mindvis.prepare.files import load_npz
from mindvis.prepare.hcp import FILE_NAME, VISUAL_ROIS
from mindvis.prepare.origins import HCP
from mindvis.prepare.parcellation import KNOWN_COUNTS

NUM_PUBLISHED = 1091


def check_hcp(root: Path, settings: Settings) -> Report:
    """Subjects, frames, voxels of each region, one hash over all files."""
    report = Report("HCP", root, [HCP])
    paths = sorted(root.glob(f"*/{FILE_NAME}"))
    if not paths:
        report.add("missing", f"no <subject>/{FILE_NAME} in {root}")
        return report
    seen = _Seen()
    for path in Progress(paths, unit="subject"):
        report.attempt(seen.add, path, settings)
    seen.summarise(report, settings)
    return report


class _Seen:
    """What the subjects that could be read have in common."""

    def __init__(self) -> None:
        self.frames: list[int] = []
        self.sizes: dict[tuple[int, ...], int] = {}
        self.constant, self.digest = 0, hashlib.sha256()

    def add(self, report: Report, path: Path, settings: Settings) -> None:
        arrays = load_npz(path)
        missing = [roi for roi in VISUAL_ROIS if roi not in arrays]
        if missing:
            raise InputError(f"{path}: no {', '.join(missing)}; needs V1 V2 V3 V4")
        regions = [arrays[roi] for roi in VISUAL_ROIS]
        shapes = {roi: list(arrays[roi].shape) for roi in VISUAL_ROIS}
        if any(r.ndim != 2 or r.dtype.kind != "f" or r.shape[0] != len(regions[0]) or 0 in r.shape for r in regions):
            raise InputError(f"{path}: shapes {shapes}; needs floats [frames voxels] with the same frames")
        if settings.read_values:
            self.constant += sum(count_constant(arrays[roi], f"{path}: {roi}") for roi in VISUAL_ROIS)
            self.digest.update(sha256(path).encode())
        self.frames.append(len(regions[0]))
        size = tuple(region.shape[1] for region in regions)
        self.sizes[size] = self.sizes.get(size, 0) + 1

    def summarise(self, report: Report, settings: Settings) -> None:
        for size, subjects in self.sizes.items():
            regions = " ".join(f"{roi} {count}" for roi, count in zip(VISUAL_ROIS, size, strict=True))
            subject = "subject" if subjects == 1 else "subjects"
            report.add("ok", f"{subjects} {subject} with {regions} = {sum(size)} voxels")
            if settings.published_sizes:
                report.expect("voxels", list(size), list(KNOWN_COUNTS.values()))
        if self.frames:
            frames = f"{min(self.frames)} to {max(self.frames)} frames"
            report.add("ok", f"{frames} (published: {NUM_PUBLISHED} subjects, runs of 1200 frames)")
        if self.frames and settings.read_values:
            digest = self.digest.hexdigest()[:16]
            report.add("ok", f"finite, {self.constant} constant voxels in all, sha256 of all files {digest}")
