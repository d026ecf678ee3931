"""How well a Stage A run predicts hidden voxels of held-out rows, beside ridge regression on the visible voxels, each
voxel's mean and the nearest patch.

Example:
  python scripts/score_mbm.py run=runs/pretrain_hcp

The figures are written to hidden_voxels.json in the run folder too.
"""

from collections.abc import Sequence

from mindvis.config.command_line import entry_point, read_settings
from mindvis.config.tools import ScoreMBMConfig


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    config = read_settings(ScoreMBMConfig, __doc__, argv)
    # imported once the settings are right: torch takes seconds
    from mindvis.inspection.hidden_voxels import score_run

    score = score_run(config)
    print(
        f"correlation on hidden voxels of {score['rows']} held-out rows: {score['model']:.3f} model, "
        f"{score['ridge']:.3f} ridge on the visible voxels (penalty {score['ridge_penalty']:g}), "
        f"{score['voxel_mean']:.3f} voxel mean, {score['nearest_patch']:.3f} nearest visible patch"
    )


if __name__ == "__main__":
    raise SystemExit(main())
