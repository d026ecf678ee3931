"""Run scripts one after the other, up to the first that fails, without waiting for the imports of each.

They are imported once, which takes longer than many a stage of a small experiment; each runs in a fork.
Example:
  python scripts/run_stages.py simulate out=data/simulated then check_data --root data/simulated --any-size
"""

import importlib
import multiprocessing
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mindvis.chain.words import split
from mindvis.common.errors import InputError, hint
from mindvis.config.command_line import Parser, entry_point

SCRIPTS = Path(__file__).parent


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(__doc__)
    parser.add_argument(
        "stages", nargs="...", metavar="SCRIPT ...", help="a script, its arguments, `then` the next one"
    )
    stages = split(parser.parse_args(argv).stages)
    sys.path.insert(0, str(SCRIPTS))  # where the scripts are imported from
    mains = {name: load(name) for name, *_ in stages}
    for name, *arguments in stages:
        print("==", shlex.join([name, *arguments]), flush=True)
        if status := run_in_fork(mains[name], name, arguments):
            return status
    return 0


def load(name: str) -> Callable[[list[str]], int]:
    """`main` of a script beside this one. Raises InputError where there is none."""
    if not (SCRIPTS / f"{name}.py").is_file():
        raise InputError(f"{name}.py: no such script; {hint(name, sorted(path.stem for path in SCRIPTS.glob('*.py')))}")
    return importlib.import_module(name).main


def run_in_fork(script: Callable[[list[str]], int], name: str, arguments: list[str]) -> int:
    """Exit status of a script that begins with what is imported here and leaves nothing behind."""
    fork = multiprocessing.get_context("fork").Process(target=_run, args=(script, name, arguments))
    fork.start()
    fork.join()
    return fork.exitcode if fork.exitcode >= 0 else 128 - fork.exitcode  # as a shell gives a signal


def _run(script: Callable[[list[str]], int], name: str, arguments: list[str]) -> None:
    sys.argv = [str(SCRIPTS / f"{name}.py"), *arguments]  # what a run folder says of its command
    sys.exit(script(arguments))


if __name__ == "__main__":
    sys.exit(main())
