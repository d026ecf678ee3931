"""From fMRI to pictures: decoding in batches, the folder of pictures, previews while a training runs."""

from collections.abc import Mapping
from typing import Any

from mindvis.common.errors import InputError


def beneath_given(given: Mapping[str, Any]) -> dict:
    """The data settings of the run, to lie beneath those of `generate` or `look_inside` that name data in part.

    Nothing where no data is given, where the run does not say which data it was tuned on, or for data of another kind.
    """
    data, run = given.get("data"), given.get("run")
    if not isinstance(data, Mapping) or not run:
        return {}
    from mindvis.config.loading import plain
    from mindvis.decoding.generation import data_of  # torch takes seconds

    try:
        known = plain(data_of(str(run)))
    except InputError:  # said when the run itself is opened
        return {}
    return {} if data.get("name", known["name"]) != known["name"] else {"data": known}
