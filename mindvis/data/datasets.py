"""Data sets of fMRI alone (Stage A) and of fMRI with images (Stage B): the contract for anyone's data.

`dataset[i]` is a plain item; `dataset[(seed, epoch, i)]` an augmented one, whose draws are a function of that key. An
item is a dict: "fmri" float32 [1 v], "key" int64 [3], and "image" float32 [3 h w] in [-1, 1] where there are images.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from mindvis.common.draws import generator
from mindvis.common.errors import InputError
from mindvis.data.arrays import FMRI, IMAGES, check_array, check_indices, require_rows
from mindvis.data.images import LazyImages, Size, height_and_width, is_cropped, random_crop, resize_all, to_float
from mindvis.data.row_format import RowFormat
from mindvis.data.rows import MappedArray, VoxelRows, float64_blocks, rows_by
from mindvis.data.voxels import interpolate, sparsify

Key = tuple[int, int, int]  # (seed, epoch, index)
Same = TypeVar("Same", bound="FMRIDataset")


@dataclass(frozen=True)
class Augmentation:
    """What an augmented pair undergoes: the share of voxels hidden; the share of the side cropped, and how often."""

    sparsify: float = 0.2
    crop_ratio: float = 0.2
    crop_probability: float = 0.5
    pairs: bool = False  # an item holds a second row of its stimulus, as "other"

    def __post_init__(self):
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise InputError(f"{name} is {value}, needs a share between 0 and 1")


class FMRIDataset(Dataset):
    """Windows or trials of fMRI [n v], for Stage A.

    `subject` [n] names whose row it is, `roi_masks` maps a region to a boolean [v], `formats` a subject to how its
    recorded rows became these. The `num_interpolated` items beyond the n rows lie between two random rows, at
    `interpolation_ratio` (the published augmentation uses n and .5). `seen` [n] is the picture that a row was recorded
    under, a place in a list of pictures, -1 for none; items have it where it is given. Arrays are checked (numeric,
    finite, agreeing in length: InputError); a mapped array stays mapped, a `MappedArray` or `VoxelRows` is not checked.
    """

    def __init__(
        self,
        fmri: np.ndarray | MappedArray | VoxelRows,
        *,
        subject: Sequence[str] | np.ndarray | None = None,
        roi_masks: dict[str, np.ndarray] | None = None,
        formats: Mapping[str, RowFormat] | None = None,
        num_interpolated: int = 0,
        interpolation_ratio: float = 0.5,
        seen: np.ndarray | None = None,
    ):
        self._fmri = _as_rows(fmri)
        self.subject = None if subject is None else np.asarray(subject, dtype=str)
        self.roi_masks, self.formats = roi_masks, dict(formats or {})
        self.num_interpolated, self.interpolation_ratio = num_interpolated, interpolation_ratio
        self.seen = None if seen is None else np.asarray(seen)
        self._require_columns("subject", "seen")

    @property
    def fmri(self) -> np.ndarray | VoxelRows:
        """float32 [n v]: an array, a map, or rows that are read when indexed (`np.asarray` reads them all)."""
        return self._fmri.array if isinstance(self._fmri, MappedArray) else self._fmri

    @property
    def num_rows(self) -> int:
        """Rows that were measured, without the interpolated ones."""
        return self._fmri.shape[0]

    @property
    def num_voxels(self) -> int:
        return self._fmri.shape[1]

    def __len__(self) -> int:
        return self.num_rows + self.num_interpolated

    def __getitem__(self, index: int | Key) -> dict[str, Tensor]:
        key, _ = self._key(index)
        item = self._item(key, self._row(key))
        if self.seen is not None:
            item["seen"] = torch.tensor(self.seen[key[2]] if key[2] < self.num_rows else -1)
        return item

    def subset(self: Same, indices: Sequence[int] | np.ndarray) -> Same:
        """The rows `indices`, in their order, without interpolated ones; of pairs the distinct images stay.

        Mapped rows are read only when asked for.
        """
        indices = check_indices(indices, "subset indices", self.num_rows)
        rows = VoxelRows([self._fmri]) if isinstance(self._fmri, MappedArray) else self._fmri
        columns = {
            name: [column[i] for i in indices] if isinstance(column, list) else column[indices]
            for name, column in self._columns().items()
        }
        taken = rows.subset(indices) if isinstance(rows, VoxelRows) else rows[indices]
        return self._changed(_fmri=taken, num_interpolated=0, **columns)

    def fitted(self: Same, num_voxels: int) -> Same:
        """The same data set at the length of a model trained on other data: wrap-padded when shorter, cut when longer.

        Region masks do not carry over.
        """
        mode = "cut" if self.num_voxels > num_voxels else "wrap"
        rows = VoxelRows([self._fmri], num_voxels=num_voxels, pad_mode=mode)
        return self._changed(_fmri=rows[:] if isinstance(self._fmri, np.ndarray) else rows, roi_masks=None)

    def with_interpolated(self: Same, num_interpolated: int, ratio: float = 0.5) -> Same:
        """The same rows and `num_interpolated` items more, each between two random rows."""
        return self._changed(num_interpolated=num_interpolated, interpolation_ratio=ratio)

    def mean_row(self) -> np.ndarray:
        """Mean of the measured rows, float32 [v]; of rows that stay in their files, some are in memory at a time."""
        if isinstance(self._fmri, np.ndarray):
            return self._fmri.mean(axis=0)
        total = sum(block.sum(axis=0) for block in float64_blocks(self._fmri))
        return (total / self.num_rows).astype(np.float32)

    def _changed(self: Same, **attributes: Any) -> Same:
        """A copy with other attributes."""
        changed = copy.copy(self)
        if {"_stimuli", "stimulus"} & attributes.keys():
            for made in ("images", "_repeats"):  # of these
                changed.__dict__.pop(made, None)
        vars(changed).update(attributes)
        return changed

    def _columns(self) -> dict[str, list | np.ndarray]:
        """The per-row attributes that are known."""
        names = ("subject", "seen", "stimulus", "repeat", "class_ids", "class_names", "stimulus_names")
        return {name: column for name in names if (column := getattr(self, name, None)) is not None}

    def _require_columns(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) is not None:
                require_rows(getattr(self, name), self.num_rows, name, "fmri")

    def _key(self, index: int | Key) -> tuple[Key, bool]:
        """(seed, epoch, i) and whether the item is to be augmented."""
        single = isinstance(index, (int, np.integer))
        seed, epoch, i = (0, 0, int(index)) if isinstance(index, (int, np.integer)) else map(int, index)
        if not -len(self) <= i < len(self):
            raise IndexError(f"item {i} of a data set of {len(self)}")
        return (seed, epoch, i % len(self)), not single

    def _row(self, key: Key) -> np.ndarray:
        if key[2] < self.num_rows:
            return self._fmri[key[2]]  # [v]
        x, y = generator(key, "interpolation").integers(self.num_rows, size=2).tolist()
        return interpolate(self._fmri[x], self._fmri[y], self.interpolation_ratio)

    @staticmethod
    def _item(key: Key, row: np.ndarray) -> dict[str, Tensor]:
        fmri = torch.from_numpy(np.array(row, dtype=np.float32)[None])  # [1 v]
        return {"fmri": fmri, "key": torch.tensor(key, dtype=torch.int64)}


class PairedDataset(FMRIDataset):
    """fMRI [n v] with the image each row was recorded under, for Stage B and evaluation.

    `images` uint8 [n h w 3], one for each row; or, with `stimulus` [n], the distinct images [m h w 3] it indexes.
    Rows of one stimulus (and subject) are repeats; `repeat` [n] counts them: 0 is the average or the only one.
    `class_ids` and `class_names` [n] where known, `stimulus_names` [n] those of the files. `image_size` squares and
    resizes the images: once, or, of `LazyImages` and of mapped ones, when they are read. `noise_ceilings`: subject ->
    share of the variance of each voxel that the stimulus explains, [v] without padding, where the data set says so.
    Raises InputError for arrays of the wrong kind or of disagreeing lengths.
    """

    def __init__(
        self,
        fmri: np.ndarray | MappedArray | VoxelRows,
        images: np.ndarray | LazyImages,
        class_ids: Sequence[int] | None = None,
        *,
        class_names: Sequence[str] | None = None,
        stimulus_names: Sequence[str] | None = None,
        stimulus: np.ndarray | None = None,
        repeat: np.ndarray | None = None,
        subject: Sequence[str] | np.ndarray | None = None,
        roi_masks: dict[str, np.ndarray] | None = None,
        formats: Mapping[str, RowFormat] | None = None,
        noise_ceilings: dict[str, np.ndarray] | None = None,
        image_size: int | None = None,
        augmentation: Augmentation | None = None,
    ):
        super().__init__(fmri, subject=subject, roi_masks=roi_masks, formats=formats)
        images = check_array(images, IMAGES, "images")
        self._stimuli = _as_source(images if image_size is None else _sized(images, image_size))
        if stimulus is None:
            require_rows(images, self.num_rows, "images", "fmri")
            stimulus = np.arange(self.num_rows)
        self.stimulus = check_indices(stimulus, "stimulus", len(images))
        self.repeat = np.zeros(self.num_rows, np.int64) if repeat is None else np.asarray(repeat)
        self.class_ids = None if class_ids is None else [int(i) for i in class_ids]
        self.class_names = None if class_names is None else [str(name) for name in class_names]
        self.stimulus_names = None if stimulus_names is None else [str(name) for name in stimulus_names]
        self.noise_ceilings = noise_ceilings
        self._require_columns("stimulus", "repeat", "class_ids", "class_names", "stimulus_names")
        self.augmentation = augmentation or Augmentation(sparsify=0, crop_ratio=0)
        self._latents: np.ndarray | MappedArray | None = None
        self._crops: list[np.ndarray | MappedArray] = []

    @property
    def stimuli(self) -> np.ndarray | LazyImages:
        """The distinct images uint8 [m h w 3], that of row i `stimuli[stimulus[i]]`: an array, or read when indexed."""
        return self._stimuli.array if isinstance(self._stimuli, MappedArray) else self._stimuli

    @cached_property
    def images(self) -> np.ndarray:
        """The image of every row, uint8 [n h w 3] (kept once made; `stimuli` and `stimulus` need less memory)."""
        if np.array_equal(self.stimulus, np.arange(len(self._stimuli))):
            return self.stimuli  # type: ignore[return-value]
        return self.stimuli[self.stimulus]

    def __getitem__(self, index: int | Key) -> dict[str, Tensor]:
        key, augmented = self._key(index)
        stimulus, row = int(self.stimulus[key[2]]), self._row(key)
        ratio, probability = self.augmentation.crop_ratio, self.augmentation.crop_probability
        if augmented:
            row = sparsify(row, self.augmentation.sparsify, generator(key, "sparsify"))
        cropped = augmented and is_cropped(ratio, probability, generator(key, "crop"))
        item: dict[str, Any] = self._item(key, row)
        if augmented and self.augmentation.pairs:
            item["other"] = torch.from_numpy(self._other_row(key)[None])
        if self._latents is not None:
            latents = self._kept_crop(key) if cropped and self._crops else self._latents
            item |= {"latent": torch.from_numpy(np.array(latents[stimulus])), "cropped": cropped and not self._crops}
        if item.get("cropped", True):
            image = self._stimuli[stimulus]
            item["image"] = to_float(random_crop(image, ratio, 1.0, generator(key, "crop")) if cropped else image)
        return item

    @staticmethod
    def collate(items: Sequence[dict]) -> dict[str, Any]:
        """A batch of items; "image" holds those of the items that have one, in their order."""
        images = [item["image"] for item in items if "image" in item]
        batch = default_collate([{name: value for name, value in item.items() if name != "image"} for item in items])
        return batch | {"image": torch.stack(images)} if images else batch

    @cached_property
    def _repeats(self) -> dict[int, list[int]]:
        """Rows of each stimulus."""
        return rows_by(self.stimulus.tolist())

    def _other_row(self, key: Key) -> np.ndarray:
        """Another row [v] of the stimulus of a row, or the same where it is the only one; other voxels are hidden."""
        draw = generator(key, "other row")
        rows = self._repeats[int(self.stimulus[key[2]])]
        others = [row for row in rows if row != key[2]] or rows
        row = self._fmri[int(draw.choice(others))]
        return np.array(sparsify(row, self.augmentation.sparsify, draw), dtype=np.float32)

    def _kept_crop(self, key: Key) -> np.ndarray | MappedArray:
        return self._crops[int(generator(key, "kept crop").integers(len(self._crops)))]

    def with_fmri(self, fmri: np.ndarray, formats: Mapping[str, RowFormat]) -> "PairedDataset":
        """The same pairs with other fMRI [n v'] for their rows; regions and noise ceilings do not carry over."""
        require_rows(fmri, self.num_rows, "fmri", "the data set")
        return self._changed(_fmri=_as_rows(fmri), formats=dict(formats), roi_masks=None, noise_ceilings=None)

    def with_image_size(self, size: Size) -> "PairedDataset":
        """The same pairs, images cropped and resized to a side, or to a height and width.

        It is done once, or, for lazy and mapped images, when they are read.
        """
        return self._changed(_stimuli=_as_source(_sized(self.stimuli, size)))

    def with_latents(self, latents: np.ndarray, crops: Sequence[np.ndarray] = ()) -> "PairedDataset":
        """The same pairs with the latents [m c h w] of `stimuli`: an item then says also whether its image is cropped.

        Items gain "latent" float32 [c h w] and "cropped" (bool). A latent replaces its image where that is whole:
        such an item has no "image", and none is read. `crops` [m c h w] each, where given, are latents of crops: an
        item whose image is to be cropped takes one of them at random, and is not marked as cropped.
        """
        for kept in (latents, *crops):
            require_rows(kept, len(self._stimuli), "latents", "stimuli")
        return self._changed(_latents=_as_source(latents), _crops=[_as_source(kept) for kept in crops])

    def with_augmentation(
        self, *, sparsify: float = 0.2, crop_ratio: float = 0.2, crop_probability: float = 0.5, pairs: bool = False
    ) -> "PairedDataset":
        """The same pairs, augmented when they are asked for by key. InputError for shares outside 0 .. 1."""
        return self._changed(augmentation=Augmentation(sparsify, crop_ratio, crop_probability, pairs))


def _sized(images: np.ndarray | LazyImages, size: Size) -> np.ndarray | LazyImages:
    if isinstance(images, LazyImages):
        return images.resized(size)
    source = _as_source(images)
    if isinstance(source, MappedArray) and images.shape[1:3] != height_and_width(size):
        return LazyImages(source, size=size)
    return resize_all(images, size)


def _as_source(array: Any) -> Any:
    """A whole map as a MappedArray, anything else as it is."""
    whole = isinstance(array, np.memmap) and array.flags.c_contiguous and not isinstance(array.base, np.ndarray)
    return MappedArray.of(array) if whole else array


def _as_rows(fmri: np.ndarray | MappedArray | VoxelRows) -> np.ndarray | MappedArray | VoxelRows:
    """Rows that give float32; arrays are checked here, as this is where they enter."""
    if isinstance(fmri, np.ndarray):
        fmri = _as_source(check_array(fmri, FMRI, "fmri"))
    if isinstance(fmri, MappedArray) and fmri.dtype != np.float32:
        return VoxelRows([fmri])
    return fmri.astype(np.float32, copy=False) if isinstance(fmri, np.ndarray) else fmri
