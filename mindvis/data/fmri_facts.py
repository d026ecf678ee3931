"""What a decoder keeps of the fMRI it was tuned on, so that new rows can be decoded without that data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mindvis.common.errors import InputError
from mindvis.data.datasets import FMRIDataset
from mindvis.data.packing import array_to_text, text_to_array
from mindvis.data.row_format import RowFormat


@dataclass(frozen=True)
class FMRIFacts:
    """How rows of each subject become input, and the mean training row [v] of that input; empty where not known."""

    formats: dict[str, RowFormat] = field(default_factory=dict)
    mean: np.ndarray | None = None

    @classmethod
    def of(cls, train: FMRIDataset) -> "FMRIFacts":
        """Of the training rows of a decoder."""
        return cls(train.formats, train.mean_row())

    def as_plain(self, roi: Any = None) -> dict[str, Any]:
        """The same as plain dicts and text, with the name of the region, ready for a checkpoint or YAML."""
        formats = {name: form.as_plain() for name, form in self.formats.items()}
        return {"roi": roi, "formats": formats, "mean": None if self.mean is None else array_to_text(self.mean)}

    @classmethod
    def from_plain(cls, content: Mapping[str, Any] | None, where: str) -> "FMRIFacts":
        """From what `as_plain` gave, or from None. Raises InputError, naming `where`, for anything else."""
        if content is None:
            return cls()
        try:
            formats = {str(name): RowFormat.from_plain(form, where) for name, form in content["formats"].items()}
            return cls(formats, text_to_array(content["mean"], "<f4"))
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise InputError(f"{where}: what it keeps of its fMRI cannot be read ({error})") from error
