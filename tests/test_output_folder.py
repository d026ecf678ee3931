"""Which folders `generate` writes into."""

import json

import pytest

from mindvis.common.errors import InputError
from mindvis.decoding.output import check_output


@pytest.fixture
def shuffled(tmp_path):
    """A folder with pictures of the shuffled control."""
    (tmp_path / "decoded.npz").touch()
    (tmp_path / "generate.json").write_text(json.dumps({"settings": {"control": "shuffled"}}))
    return tmp_path


def test_an_empty_folder_is_taken(tmp_path):
    """Also one that is not there yet."""
    check_output(tmp_path / "new", overwrite=False)


@pytest.mark.parametrize(("overwrite", "control", "said"), [
    (False, "shuffled", "overwrite=true"), (True, "none", "holds pictures of control=shuffled"),
])  # fmt: skip
def test_pictures_are_not_replaced_unasked(shuffled, overwrite, control, said):
    """Nor by pictures of another kind, whatever may be overwritten."""
    with pytest.raises(InputError, match=said):
        check_output(shuffled, overwrite, control)


def test_pictures_of_the_same_control_are_replaced(shuffled):
    """Where the settings allow it."""
    check_output(shuffled, overwrite=True, control="shuffled")
