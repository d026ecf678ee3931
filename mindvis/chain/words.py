"""Stages named on one command line."""

from collections.abc import Sequence

from mindvis.common.errors import InputError


def split(words: Sequence[str]) -> list[list[str]]:
    """The words of each stage. Raises InputError where one has none."""
    stages: list[list[str]] = [[]]
    for word in words:
        stages.append([]) if word == "then" else stages[-1].append(word)
    if [] in stages:
        raise InputError("a stage is empty; needed: a script with its arguments, `then` the next one")
    return stages
