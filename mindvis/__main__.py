"""mindvis: seen images from human fMRI. One step a command; the order of a whole chain is that of run_chain.

Examples:
  python -m mindvis run_chain --config configs/demo.yaml      # configs/ is found in the package where it is not here
  python -m mindvis finetune_ldm --help

usage: python -m mindvis STEP [--config YAML] [key=value ...]
"""

import ast
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from mindvis.common.errors import InputError, hint
from mindvis.config.command_line import entry_point

STEPS = Path(__file__).resolve().parent / "steps"  # of a checkout: a link to scripts/


def steps() -> dict[str, str]:
    """Every step with the first sentence of what it says of itself."""
    texts = {path.stem: ast.get_docstring(ast.parse(path.read_text())) or "" for path in sorted(STEPS.glob("*.py"))}
    return {name: text.split("\n\n")[0].replace("\n", " ") for name, text in texts.items() if text}


@entry_point
def main(argv: Sequence[str] | None = None) -> int:
    """List the steps, or run one."""
    name, *arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    known = steps()
    if name in ("-h", "--help"):
        sys.stdout.write(f"{__doc__}\nsteps:\n")
        sys.stdout.writelines(f"  {step:<20} {text}\n" for step, text in known.items())
        return 0
    if name not in known:
        raise InputError(f"command line: there is no step {name!r}; {hint(name, known)}")
    return importlib.import_module(f"mindvis.steps.{name}").main(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
