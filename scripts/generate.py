"""Decode pictures from the test fMRI of a run, or from rows without pictures; with control=shuffled, the control.

Examples:
  python scripts/generate.py --config configs/generate_god.yaml run=runs/finetune_ldm_god stimuli=[0,1,2]
  python scripts/generate.py --config configs/generate_god.yaml init=ridge strength=.4 # begin with a ridge's picture
  python scripts/generate.py run=shared/decoder fmri=rows.npy output=pictures      # rows [n v] as they were recorded
  python scripts/generate.py run=shared/decoder data.root=more.npz output=pictures # the same kind of data
Processes that torchrun or SLURM starts share the stimuli; a picture does not depend on how many there are:
  torchrun --nproc-per-node=2 scripts/generate.py --config configs/generate_god.yaml
"""

from collections.abc import Sequence

import numpy as np

from mindvis.common.shares import Process, Shares, parts_folder
from mindvis.config.command_line import entry_point, read_settings
from mindvis.config.decoding import GenerateConfig
from mindvis.decoding import beneath_given


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    config = read_settings(GenerateConfig, __doc__, argv, beneath=beneath_given)
    # imported once the settings are right: torch takes seconds
    from mindvis.checkpoints import weights_file
    from mindvis.common.devices import choose_device, use_threads
    from mindvis.decoding import generation
    from mindvis.decoding.decode import decode
    from mindvis.decoding.output import check_output, choose_rows, write_decoded
    from mindvis.decoding.settle import settle_sampling

    process, output = Process.from_environment(), generation.output_folder(config)
    check_output(output, config.overwrite, config.control)
    use_threads(config.num_threads)
    if process.leads:
        print(f"weights: {weights_file(config.run, config.checkpoint)}", flush=True)
    ldm = generation.load_decoder(config).to(choose_device(config.device, process.rank))
    dataset, shown, mean, train = generation.open_to_decode(config, ldm)
    rows = choose_rows(dataset, config.stimuli)
    sampling = settle_sampling(config, ldm, process)
    options = generation.decode_options(config, ldm, mean) | sampling.options
    provenance = sampling.noted(generation.generation_provenance(config, dataset, ldm)) | shown.facts
    shares = Shares(parts_folder(output, provenance, process), process, config.wait_minutes)

    def decode_share(share: np.ndarray) -> np.ndarray:
        chosen = [rows[i] for i in share]
        return decode(ldm, shown.fmri[chosen], chosen, **options)

    all_decoded = shares.begin("decoded" + shares.key(*sampling.weights(ldm)), len(rows), decode_share)
    if process.leads:
        grid = generation.decode_training(ldm, train, config, options)
        write_decoded(output, all_decoded(), dataset, rows, provenance, fmri_rows=shown.rows[rows], training=grid)
        shares.remove()
        generation.show_grids(config, output, provenance)
        print(f"pictures: {output / 'grid.png'}")


if __name__ == "__main__":
    raise SystemExit(main())
