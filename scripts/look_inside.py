"""What a model looks at: attention of the encoder by region, and what is lost when one region is silenced.

Examples:
  python scripts/look_inside.py run=runs/finetune_ldm_god classifier=vit_h_14 num_stimuli=50 num_samples=5
  python scripts/look_inside.py run=runs/pretrain_hcp parts=[attention]
  python scripts/look_inside.py run=pretrains/GOD/fmri_encoder.pth data.root=data/Kamitani/npz data.subjects=[sbj_3]

Attention is rolled out over the layers and given per voxel. Occlusion sets the voxels of a region to 0: in Stage B the
test set is decoded and scored again, in Stage A hidden voxels are predicted again. Where the regions are Glasser areas
of HCP data, both are also drawn on the cortical flat map.
"""

from collections.abc import Sequence

from mindvis.config.command_line import entry_point, read_settings
from mindvis.config.tools import LookInsideConfig
from mindvis.decoding import beneath_given


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    config = read_settings(LookInsideConfig, __doc__, argv, beneath=beneath_given)
    # imported once the settings are right: torch takes seconds
    from mindvis.common.devices import use_threads
    from mindvis.inspection.look import look_inside

    use_threads(config.num_threads)
    found, output = look_inside(config)
    for line in found.skipped:
        print(line)
    print(f"inside: {', '.join(found.tables)} of {len(next(iter(found.tables.values())))} regions in {output}")


if __name__ == "__main__":
    raise SystemExit(main())
