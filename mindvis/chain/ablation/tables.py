"""The paper's ablation tables as data: every row as settings, with the paper's value beside it."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mindvis.common.errors import InputError
from mindvis.config.loading import read_yaml

FOLDER = Path(__file__).resolve().parents[2] / "assets" / "ablations"


@dataclass(frozen=True)
class Row:
    """One row: `god` and `demo` are settings by stage, laid over the chain of that scale; a stage of None is left out.

    Where these are None themselves, the row cannot be run at that scale, and `reason` says why.
    """

    name: str
    paper: float  # 50-way top-1 in per cent, GOD subject 3, mean of 5 sample sets
    deviation: float | None = None  # over the sample sets, where the paper gives it
    god: dict[str, Any] | None = None
    demo: dict[str, Any] | None = None
    scaled_to: str = ""  # what stands for the name at the scale of the demo, where it is another
    reason: str = ""


@dataclass(frozen=True)
class Table:
    """One table of the paper; `measures` are the names of what is measured, by scale."""

    name: str
    title: str
    measures: dict[str, list[str]]
    rows: list[Row]
    scaled: str = field(default="")  # how the rows were scaled down


def table_names() -> list[str]:
    """Names of all tables."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_table(name: str) -> Table:
    """The table of that name. Raises `InputError` for another name, and for a file that was edited wrongly."""
    if name not in table_names():
        raise InputError(f"ablation table {name!r}: none of that name; needed: one of {', '.join(table_names())}")
    path = FOLDER / f"{name}.yaml"
    content = read_yaml(path)
    try:
        rows = [
            Row(**row | {key: str(row[key]) for key in ("name", "scaled_to") if key in row}) for row in content["rows"]
        ]
        return Table(name, **content | {"rows": rows})
    except (TypeError, KeyError) as error:
        keys = ", ".join(item.name for item in fields(Row))
        raise InputError(f"{path}: {error}; needed: title, measures, rows, and in a row {keys}") from error


def choose_rows(table: Table, names: list[str]) -> list[Row]:
    """The rows of these names, all for an empty list. Raises `InputError` for a name that is not in the table."""
    known = {row.name: row for row in table.rows}
    for name in names:
        if name not in known:
            raise InputError(f"setting rows names {name!r}; needed: some of {', '.join(known)}")
    return [row for row in table.rows if row.name in names or not names]
