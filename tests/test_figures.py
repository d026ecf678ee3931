"""Grids put every pixel where it belongs; plots are pictures of what they were given."""

import numpy as np
from PIL import Image

from mindvis.common.plots import (
    image_grid,
    masked_reconstruction_plot,
    per_class_bars,
    png_bytes,
    reconstruction_grid,
    save_png,
)


def test_grid_keeps_every_picture(rng):
    """Each cell is the picture of its row and column, gaps are white."""
    images = rng.integers(0, 256, (2, 3, 5, 7, 3), dtype=np.uint8)
    grid = image_grid(images, gap=2)
    assert grid.shape == (2 + 2 * 7, 2 + 3 * 9, 3)
    np.testing.assert_array_equal(grid[9:14, 20:27], images[1, 2])
    assert (grid[:2] == 255).all() and (grid[:, :2] == 255).all()


def test_stimulus_comes_first(rng):
    """The first column is the stimulus, set apart from the decoded ones."""
    stimuli = rng.integers(0, 200, (2, 6, 6, 3), dtype=np.uint8)
    decoded = rng.integers(0, 200, (2, 3, 6, 6, 3), dtype=np.uint8)
    grid = reconstruction_grid(stimuli, decoded)
    np.testing.assert_array_equal(grid[4:10, 4:10], stimuli[0])
    assert (grid[:, 10:26] == 255).all()
    np.testing.assert_array_equal(grid[14:20, 26:32], decoded[1, 0])


def test_masked_reconstruction_shows_hidden_correlation(rng):
    """The title gives the correlation on hidden voxels; the middle panel leaves them out."""
    fmri = rng.standard_normal((2, 32))
    mask = np.zeros((2, 4))
    mask[:, 1:3] = 1
    figure = masked_reconstruction_plot(fmri, mask, fmri.reshape(2, 4, 8))
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[2] == "reconstruction, r = 1.00 on hidden voxels" and titles[1] == "visible (50%)"
    visible = figure.axes[1].lines[0].get_ydata()
    assert np.isnan(visible[8:24]).all() and not np.isnan(visible[:8]).any()


def test_bars_are_sorted():
    """Best class first."""
    figure = per_class_bars(["a", "b", "c"], [0.2, 0.9, 0.5], chance=0.1, label="accuracy")
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0.9, 0.5, 0.2]
    assert png_bytes(figure).startswith(b"\x89PNG")


def test_save_png_leaves_no_partial_file(rng, tmp_path):
    """The file reads back, and nothing else is left."""
    picture = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    path = save_png(picture, tmp_path / "grid.png")
    np.testing.assert_array_equal(np.asarray(Image.open(path)), picture)
    assert list(tmp_path.iterdir()) == [path]
