"""One wandb run a stage: opened without a prompt, and without the network unless `online`; linked to its chain.

wandb itself is imported only where a run is opened.
"""

import logging
import netrc
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from mindvis.common.errors import InputError
from mindvis.common.texts import read_record
from mindvis.config.conform import check_values
from mindvis.config.loading import read_yaml
from mindvis.config.schemas import LoggingConfig

log = logging.getLogger(__name__)

OWN_DATA, PUBLIC_DATA = "npz", ("hcp", "god", "bold5000", "mosaic", "nsd")
SOURCES = ("encoder", "pretrained")  # settings that name the run folder a training goes on from
_KEY_VARIABLES = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")


def check_logging(settings: LoggingConfig) -> None:
    """Raise `InputError` for `online` without a key, no home or a package that is missing: before any work is done."""
    check_values(settings, prefix="logging.")
    if settings.wandb == "online" and not _has_key():
        raise InputError("setting logging.wandb is online but there is no key; needed: `wandb login`, or offline")
    if settings.wandb != "disabled" and not _has_home():
        needed = "HOME, where wandb keeps its own files, or logging.wandb=disabled"
        raise InputError(f"setting logging.wandb is {settings.wandb} but no home folder is known; needed: {needed}")
    if settings.tensorboard:
        summary_writer()


def summary_writer() -> Any:
    """TensorBoard's writer of event files. Raises `InputError` where the package is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        missing = "setting logging.tensorboard: the package is missing; needed: pip install tensorboard"
        raise InputError(missing) from error
    return SummaryWriter


def open_wandb(
    settings: LoggingConfig,
    folder: Path,
    *,
    stage: str,
    name: str,
    config: Mapping[str, Any],
    identity: str | None = None,
    sources: Sequence[Mapping[str, str]] = (),
) -> Any:
    """An open wandb run with its files below `folder`/wandb; the job type is the stage.

    `identity` is the id of a run that is continued; `sources` are the runs it came from (`source_runs`), nearest first:
    they are written into its config, and their artifacts are named as inputs when it is online. Raises `InputError`
    where it cannot be opened.
    """
    check_logging(settings)
    import wandb

    online = settings.wandb == "online"
    if not online:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # reports of wandb's own crashes would use the network
    try:
        run = wandb.init(
            project=settings.project,
            group=choose_group(settings.group, config.get("data"), sources),
            job_type=stage,
            name=name,
            id=identity or new_identity(),
            config=dict(config) | {"sources": [dict(source) for source in sources]},
            mode=settings.wandb,  # type: ignore[arg-type]
            dir=folder,
            resume="allow" if online else None,
            reinit="create_new",  # stages may follow one another in one process
            settings=wandb.Settings(silent=not online, console="off"),
        )
    except wandb.Error as error:
        raise InputError(f"setting logging.wandb is {settings.wandb}: {str(error).splitlines()[0]}") from error
    run.define_metric("*", step_metric="step")
    if online:
        _use_artifacts(run, sources)
    return run


@contextmanager
def staged_in(folder: Path) -> Iterator[None]:
    """Keep the pictures of tables in `folder`, beside the run that names them, unless WANDB_DATA_DIR says where.

    wandb would put them into the home folder, where an offline run that is sent later, from elsewhere, misses them.
    """
    chosen = os.environ.get("WANDB_DATA_DIR")
    os.environ["WANDB_DATA_DIR"] = chosen or str(folder.resolve())
    try:
        yield
    finally:
        del os.environ["WANDB_DATA_DIR"]
        if chosen is not None:
            os.environ["WANDB_DATA_DIR"] = chosen


def new_identity() -> str:
    """Id of a new wandb run; not drawn from any seed."""
    return uuid.uuid4().hex[:8]


def choose_group(group: str | None, data: Mapping[str, Any] | None, sources: Sequence[Mapping[str, str]]) -> str | None:
    """`group` if set, else that of the run it goes on from, else the name of the data set.

    Own data is named by its file; it does not inherit a group that is the name of another data set.
    """
    inherited = next((source["group"] for source in sources if source["group"]), None)
    name = None if data is None else data.get("name")
    if data is None or name != OWN_DATA:
        return group or inherited or name
    return group or (inherited if inherited not in PUBLIC_DATA else None) or Path(data["root"]).stem


def source_runs(folder: str | Path | None) -> list[dict[str, str]]:
    """Stage, id, name, group (and artifact) of the wandb runs behind a run folder, itself first.

    Runs without wandb, and published files, are passed over.
    """
    found = []
    for path in runs_behind(folder):
        manifest = read_record(path / "manifest.json")
        if "wandb" in manifest:
            found.append({"stage": manifest["stage"], **manifest["wandb"]})
    return found


def origin(settings: Mapping[str, Any]) -> str | None:
    """The run folder or file that the settings of a training name as its beginning."""
    return next((settings[name] for name in SOURCES if settings.get(name)), None)


def runs_behind(folder: str | Path | None) -> list[Path]:
    """Run folders from `folder` back to the first stage, as far as they are still there."""
    path, chain = folder, []
    while isinstance(path, str | Path) and (Path(path) / "manifest.json").is_file() and Path(path) not in chain:
        chain.append(Path(path))
        config = Path(path) / "config.yaml"
        path = origin(read_yaml(config)) if config.is_file() else None
    return chain


def _has_home() -> bool:
    try:
        return bool(Path.home())
    except RuntimeError:  # no HOME, and a user without a passwd entry
        return False


def _has_key() -> bool:
    """wandb would ask for a key on the terminal, where a job has nobody to answer."""
    if any(os.environ.get(name) for name in _KEY_VARIABLES):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    try:
        path = os.environ.get("NETRC") or Path.home() / ".netrc"
        return netrc.netrc(path).authenticators(host or "") is not None
    except (OSError, RuntimeError, netrc.NetrcParseError):  # RuntimeError: no home folder is known
        return False


def _use_artifacts(run: Any, sources: Sequence[Mapping[str, str]]) -> None:
    """Draw the line from the nearest run that sent its checkpoints; a missing artifact is no reason to stop."""
    import wandb

    name = next((source["artifact"] for source in sources if "artifact" in source), None)
    if name is None:
        return
    try:
        run.use_artifact(f"{name}:latest")
    except (wandb.Error, ValueError) as error:
        log.warning("wandb has no artifact %s yet (%s): this run is linked by its config alone", name, error)
