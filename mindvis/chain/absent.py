"""What the steps of a chain read and nobody has put there: told before the first of them, which may take days."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mindvis.chain.inputs import FILE_SETTINGS, data_files
from mindvis.chain.plan import Step
from mindvis.checkpoints import find_ldm
from mindvis.common.errors import InputError
from mindvis.config.loading import flatten
from mindvis.evaluation.classifiers import check_classifier_weights


def absent_inputs(steps: Sequence[Step], pending: Sequence[Step]) -> list[str]:
    """One line for every input of a `pending` step that is not there and that none of `steps` makes."""
    made = [step.folder.resolve() for step in steps]
    lines = []
    for step in pending:
        for key, path, what in _absent(step.settings):
            if not any(path.resolve().is_relative_to(folder) for folder in made):
                lines.append(f"{what} ({key} of {step.stage})")
        if step.stage == "evaluate":
            lines += _absent_classifier(step.settings)
    return list(dict.fromkeys(lines))


def refuse_absent(absent: Sequence[str]) -> None:
    """Raises InputError with the first of the lines of `absent_inputs`, if there is one."""
    if absent:
        more = f", and {len(absent) - 1} more (dry_run=true lists them)" if len(absent) > 1 else ""
        raise InputError(f"an input is absent: {absent[0]}{more}; needed before the first step of the chain")


def _absent(settings: dict) -> Iterator[tuple[str, Path, str]]:
    """Settings of a stage that name files or folders, with the path that is not there and what to call it."""
    for key, value in flatten({name: settings.get(name) for name in FILE_SETTINGS}).items():
        for path in value if isinstance(value, list) else [value]:
            if not path or path == "auto":
                continue
            path = find_ldm(path) if key == "ldm" else Path(path)
            if not path.exists():
                yield key, path, str(path)
    for key in ("data", "extra_data"):
        if settings.get(key) and not any(path.exists() for path in data_files(settings[key])):
            root, whose = settings[key]["root"], ", ".join(settings[key]["subjects"] or [])
            yield f"{key}.root", Path(root), f"{settings[key]['name']} data{' of ' * bool(whose)}{whose} in {root}"


def _absent_classifier(settings: dict) -> Iterator[str]:
    try:
        check_classifier_weights(settings["classifier"], settings["classifier_weights"])
    except InputError as error:
        yield f"{error} (classifier_weights of evaluate)"
