"""Looking inside as the settings ask for it: numbers and pictures in one folder."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mindvis.common.errors import InputError
from mindvis.common.files import to_csv, write_json, write_text
from mindvis.common.plots import interval_bars, save_png_and_pdf, score_label
from mindvis.config.loading import plain
from mindvis.config.tools import PARTS, LookInsideConfig
from mindvis.data.hcp import VOLUMETRIC
from mindvis.inspection.cortex import flat_map_figure, load_flat_map, on_surface
from mindvis.inspection.inputs import Opened, open_model
from mindvis.inspection.occlusion import ALL, make_score, occlusion
from mindvis.inspection.rollout import patch_attention, region_attention, voxel_attention

SUMMARY = "inside.json"
ATTENTION_LABEL = "attention per voxel (average voxel: 1)"


@dataclass
class Inside:
    """Tables and pictures of one look; `skipped` says in a line what could not be drawn and why."""

    tables: dict[str, list] = field(default_factory=dict)  # part -> rows
    pictures: dict[str, Figure] = field(default_factory=dict)  # file name -> figure
    skipped: list[str] = field(default_factory=list)


def look_inside(config: LookInsideConfig) -> tuple[Inside, Path]:
    """Attention and occlusion by region, as the settings choose, written to a folder; returns both.

    The folder gets `<part>.csv`, pictures as PNG and PDF, and inside.json with settings and tables. Raises InputError
    before anything is computed for regions, weights or data that are not there.
    """
    if not config.parts:
        raise InputError(f"setting parts is empty; needed: one or both of {', '.join(PARTS)}")
    run = Path(config.run)
    output = Path(config.output or (run if run.is_dir() else run.parent) / "inside")
    opened = open_model(config)
    found = Inside()
    looks = {"attention": look_at_attention, "occlusion": look_at_occlusion}
    for part in config.parts:
        looks[part](opened, config, found)
    _write(output, found, opened, config)
    return found, output


def look_at_attention(opened: Opened, config: LookInsideConfig, found: Inside) -> None:
    """Adds the table and pictures of attention rollout."""
    attention = patch_attention(opened.encoder, opened.fmri, config.batch_size)  # [n l]
    voxels = voxel_attention(attention, opened.encoder.patch_size, opened.regions.padding)  # [n v]
    table = region_attention(voxels, opened.regions, seed=config.seed, num_bootstrap=config.num_bootstrap)
    found.tables["attention"] = table
    names = [f"{row.roi}\n({row.num_voxels})" for row in table]
    values, spans = [row.attention for row in table], [(row.low, row.high) for row in table]
    found.pictures["attention"] = interval_bars(names, values, spans, label=ATTENTION_LABEL, base=1.0)
    means = {row.roi: row.attention for row in table}
    by_voxel = {roi: voxels[:, mask].mean(axis=0) for roi, mask in opened.regions.masks.items()}
    _add_flat_map(found, opened, config, OnCortex("attention", ATTENTION_LABEL, 1.0, means, by_voxel))


def look_at_occlusion(opened: Opened, config: LookInsideConfig, found: Inside) -> None:
    """Adds the table and pictures of occlusion: a bar chart a score, the flat map of the main one."""
    options = {"seed": config.seed, "num_bootstrap": config.num_bootstrap}
    table = occlusion(opened.fmri, opened.regions, make_score(opened, config), **options)
    found.tables["occlusion"] = table
    scores = list(dict.fromkeys(drop.score for drop in table))
    for score in scores:
        drops = [drop for drop in table if drop.score == score]
        names = [f"{drop.roi}\n({drop.num_voxels})" for drop in drops]
        spans = [(drop.low, drop.high) for drop in drops]
        bars = interval_bars(names, [drop.drop for drop in drops], spans, label=f"drop in {score_label(score)}")
        found.pictures["occlusion" if score == scores[0] else f"occlusion-{score}"] = bars
    of_main = {drop.roi: drop.drop for drop in table if drop.score == scores[0] and drop.roi != ALL}
    _add_flat_map(found, opened, config, OnCortex("occlusion", f"drop in {score_label(scores[0])}", 0.0, of_main))


@dataclass(frozen=True)
class OnCortex:
    """What a flat map shows: a value a region, and where known one a voxel, beside the `centre` of the colours."""

    part: str
    label: str
    centre: float
    means: Mapping[str, float]
    by_voxel: Mapping[str, np.ndarray] | None = None


def _add_flat_map(found: Inside, opened: Opened, config: LookInsideConfig, shown: OnCortex) -> None:
    """The flat map of HCP data, or a line that says why there is none."""
    if not config.flat_map:
        return
    try:
        if opened.data.name != "hcp":
            raise InputError(f"vertices are known for HCP data, not for {opened.data.name}")
        if any((Path(opened.data.root) / name / VOLUMETRIC).exists() for name in set(opened.dataset.subject)):
            raise InputError("these voxels are of volumes, which have no place on the cortical surface")
        flat = load_flat_map()
        values, exact = on_surface(flat, opened.regions.masks, shown.by_voxel, shown.means)
    except InputError as error:
        found.skipped.append(f"flat map of {shown.part} skipped: {error}")
        return
    label = shown.label if exact or shown.by_voxel is None else f"{shown.label}, mean of the area"
    found.pictures[f"{shown.part}-flat_map"] = flat_map_figure(flat, values, centre=shown.centre, label=label)


def _write(output: Path, found: Inside, opened: Opened, config: LookInsideConfig) -> None:
    tables = {part: [asdict(row) for row in table] for part, table in found.tables.items()}
    for part, rows in tables.items():
        write_text(output / f"{part}.csv", to_csv(list(rows[0]), rows))
    for name, figure in found.pictures.items():
        save_png_and_pdf(figure, output / name.replace("/", "-"))
    facts = {"stage": opened.stage, "rows": opened.which, "num_rows": len(opened.rows), "row_indices": opened.rows}
    settings = {"settings": plain(config), "data": plain(opened.data)}
    write_json(output / SUMMARY, facts | tables | {"skipped": found.skipped} | settings)
