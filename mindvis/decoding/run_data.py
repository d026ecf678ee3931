"""A data set that is named in part, as `data.root=x.npz`: the rest is that of the run."""

from collections.abc import Mapping
from typing import Any

from mindvis.common.errors import InputError


def beneath_given(given: Mapping[str, Any]) -> dict:
    """What lies beneath the settings of `generate` or `look_inside` as they were given: the data settings of the run.

    Nothing where no data is given, where the run does not say which data it was tuned on, or for data of another kind.
    """
    data, run = given.get("data"), given.get("run")
    if not isinstance(data, Mapping) or not run:
        return {}
    from mindvis.decoding.open import known_data  # torch takes seconds

    try:
        known = known_data(str(run))
    except InputError:  # said when the run itself is opened
        return {}
    return {} if known is None or data.get("name", known["name"]) != known["name"] else {"data": known}
