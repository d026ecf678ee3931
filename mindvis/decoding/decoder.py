"""A tuned decoder for Python: fMRI as it was recorded -> pictures, with all that the model itself knows of its fMRI."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from mindvis.checkpoints import build_ldm_from, find_ldm, read_weights
from mindvis.checkpoints.weights import RIDGE_FILE
from mindvis.common.devices import choose_device, use_threads
from mindvis.common.errors import InputError
from mindvis.data.arrays import FMRI, check_array
from mindvis.data.row_format import FMRIFacts, RowFormat
from mindvis.data.voxels import patched_length
from mindvis.dc_ldm import LatentDiffusion
from mindvis.decoding.decode import decode
from mindvis.decoding.ridge import INITS, STRENGTH, home_of, predict_rows, read_ridge

SCALINGS = ("stored", "none")


class Decoder:
    """A tuned decoder, on its device and in evaluation mode, with what it keeps of the fMRI it was trained on.

    `scaling` says what rows have to be: `voxel` or `subject`, raw, as the training rows were recorded (the model scales
    them by the moments of these), or `none`, scaled already. `subjects` are those it was tuned on.
    """

    def __init__(self, ldm: LatentDiffusion, facts: FMRIFacts, source: str):
        self.ldm, self.facts, self.source = ldm, facts, source

    @property
    def scaling(self) -> str:
        return next((form.scale for form in self.facts.formats.values()), "none")

    @property
    def subjects(self) -> list[str]:
        return list(self.facts.formats)

    @property
    def num_voxels(self) -> int | None:
        """Voxels of a row (of the first subject's); None where the model does not say, as in published files."""
        return next((form.num_voxels for form in self.facts.formats.values()), None)

    def decode(
        self,
        fmri: np.ndarray,
        num_samples: int = 5,
        *,
        sampler: str = "plms",
        num_steps: int = 250,
        guidance: float = 1.0,
        init: str = "none",
        strength: float = STRENGTH,
        seed: int = 2022,
        batch_size: int = 16,
        precision: str = "32-true",
        scaling: str = "stored",
        subject: str | Sequence[str] | None = None,
        stimuli: Sequence[int] | None = None,
    ) -> np.ndarray:
        """Rows of fMRI [n v] -> pictures uint8 [n k h w 3], k = `num_samples`.

        Scaling and padding are done here; `scaling="none"` takes the rows as scaled. `subject`: whose rows they are,
        one name or one a row, where the model knows several. `stimuli` [n] are the numbers from which the noise of each
        row follows, 0 to n - 1 unless given, as `generate` numbers its rows. `init="ridge"` needs the regression that
        `generate init=ridge` has fitted and kept beside the weights. Other arguments as of `generate`. Raises
        InputError for rows that do not fit the model.
        """
        given = self.prepare(fmri, scaling=scaling, subject=subject)
        mean = self.facts.mean
        if guidance != 1 and mean is None:
            raise InputError(f"{self.source}: does not keep its mean training fMRI, which guidance={guidance} needs")
        numbers = range(len(given)) if stimuli is None else stimuli
        if len(numbers) != len(given):
            raise InputError(f"stimuli has {len(numbers)} numbers; needed: {len(given)}, one for each row")
        return decode(
            self.ldm,
            given,
            list(numbers),
            num_samples=num_samples,
            sampler=sampler,
            num_steps=num_steps,
            batch_size=batch_size,
            seed=seed,
            precision=precision,
            guidance=guidance,
            mean_fmri=mean,
            initial=self._initial(init),
            strength=strength if init == "ridge" else 1.0,
        )

    def _initial(self, init: str) -> Callable[[np.ndarray], np.ndarray] | None:
        """Latents [n d] by the ridge regression kept beside the weights, or None to start from noise."""
        if init not in INITS:
            raise InputError(f"init is {init!r}; needed: one of {', '.join(INITS)}")
        if init == "none":
            return None
        file = home_of(self.source) / RIDGE_FILE
        if not file.is_file():
            raise InputError(f"{file}: no ridge regression kept; needed: generate init=ridge, which fits it, first")
        return partial(predict_rows, read_ridge(file)[0])

    def prepare(
        self,
        fmri: np.ndarray,
        *,
        scaling: str = "stored",
        subject: str | Sequence[str] | None = None,
        label: str = "fmri",
    ) -> np.ndarray:
        """Rows of fMRI [n v] as the encoder takes them, float32 [n num_voxels]. Raises InputError as `decode`."""
        if scaling not in SCALINGS:
            raise InputError(f"scaling is {scaling!r}; needed: one of {', '.join(SCALINGS)}")
        rows = check_array(np.asarray(fmri), FMRI, label)
        names = self._subjects_of(len(rows), subject, label)
        num_input = self.ldm.conditioner.encoder.num_voxels
        given = np.empty((len(rows), num_input), np.float32)
        for name in dict.fromkeys(names):
            own = np.array([other == name for other in names])
            form = self._format(name, rows.shape[1], label)
            given[own] = form.to_input(rows[own], num_input, scaled=scaling == "none", label=label)
        return given

    def _subjects_of(self, num_rows: int, subject: str | Sequence[str] | None, label: str) -> list[str]:
        """Whose each row is."""
        known = self.subjects
        if not known:
            return [""] * num_rows
        if subject is None and len(known) > 1:
            raise InputError(f"{self.source}: knows subjects {', '.join(known)}; needed: subject=, whose fMRI it is")
        names = known * num_rows if subject is None else [subject] * num_rows if isinstance(subject, str) else subject
        unknown = [name for name in names if name not in known]
        if unknown or len(names) != num_rows:
            found = f"{label}: subject is {subject!r} for {num_rows} rows"
            raise InputError(f"{found}; needed: one of {', '.join(known)}, or one for each row")
        return list(names)

    def _format(self, subject: str, found: int, label: str) -> RowFormat:
        """The stored format of a subject's rows; of a model that keeps none, that of scaled rows of fitting length."""
        encoder = self.ldm.conditioner.encoder
        if subject in self.facts.formats:
            return self.facts.formats[subject]
        if found != encoder.num_voxels and patched_length(found, encoder.patch_size) != encoder.num_voxels:
            needed = f"rows that {encoder.num_voxels} voxels are the padded length of"
            raise InputError(f"{label} has rows of {found} voxels, {self.source} does not say of how many; {needed}")
        return RowFormat(num_voxels=found)


def load(
    path: str | Path,
    *,
    checkpoint: str = "selected",
    device: str = "auto",
    num_threads: int | None = None,
    fmri_encoder: str | Path | None = None,
    ldm: str | Path | None = None,
) -> Decoder:
    """A decoder from a run folder of finetune_ldm, an exported folder or a published finetuned.pth.

    `checkpoint`: `selected`, `best` or `last` of a run folder; `device`: `auto`, `cpu` or `cuda`. `fmri_encoder` and
    `ldm` (the label2img model.ckpt, or `demo`) are needed where a finetuned.pth lies apart from them. Raises
    InputError.
    """
    use_threads(num_threads)
    label2img = find_ldm(str(ldm)) if ldm else None
    model, _ = build_ldm_from(path, fmri_encoder=fmri_encoder, label2img=label2img, checkpoint=checkpoint)
    facts = FMRIFacts.from_plain(read_weights(path, checkpoint).settings.get("fmri"), str(path))
    return Decoder(model.eval().to(choose_device(device)), facts, str(path))
