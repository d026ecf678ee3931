"""README.md and docs/*.md do not rot: their commands run, their links and files are there, their settings exist.

Where a test here fails after an edit of a page: a command needs a recipe in tests/readme_commands.py (what makes it
small), everything else is a name that the page spells otherwise than the project does.
"""

import pydoc
import re
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import pytest
from command_lines import PYPROJECT, ROOT, SCRIPTS, parse_only, schema_of, setting_names, uses_settings, words
from readme_commands import PAGES, Workshop

from mindvis.config.tools import ChainConfig
from mindvis.prepare import check

EXTRAS = PYPROJECT["project"]["optional-dependencies"]
PROGRAMS = r"(python3?|pip|git|conda|cd|source|bash|wandb|torchrun|sbatch|pytest|ruff|export|scripts/\w+\.sh)\b"
UNKNOWN_PROGRAMS = r"[$>] |(uv|make|curl|wget|docker|sudo|apt|apt-get|brew|mamba|ls|cp|mv|mkdir|tar|unzip)\s"
FORM_ALONE = ("pip", "git", "conda", "cd", "source", "wandb", "export")
PLACEHOLDERS = {"key"}  # key=value
FRONT_PAGE_BYTES = 9000


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, and its commands (none: it shows what something prints, or is Python)."""

    page: str
    line: int
    text: str

    @property
    def lines(self) -> list[str]:
        """What is in it, lines that a backslash continues put together."""
        joined = re.sub(r"\\\n\s*", "", self.text)
        return [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]

    @property
    def commands(self) -> list[str]:
        return [line for line in self.lines if re.match(PROGRAMS, line)]

    def __str__(self) -> str:
        name = re.sub(r"[^\w.=-]+", "_", " ".join(self.commands[0].split()[:3])) if self.commands else "output"
        return f"{self.page}-{self.line}-{name}"


class Page:
    """One page: its text, its fenced blocks, the text between them and what stands between backticks there."""

    def __init__(self, path: Path):
        self.path, self.name = path, path.relative_to(ROOT).as_posix()
        self.text = path.read_text()

    @cached_property
    def blocks(self) -> list[Block]:
        found = re.finditer(r"^```\w*\n(.*?)^```", self.text, re.MULTILINE | re.DOTALL)
        return [Block(self.name, self.text[: match.start()].count("\n") + 1, match.group(1)) for match in found]

    @cached_property
    def prose(self) -> str:
        return re.sub(r"^```.*?^```", "", self.text, flags=re.MULTILINE | re.DOTALL)

    @cached_property
    def code(self) -> list[str]:
        return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", self.prose)]

    @cached_property
    def anchors(self) -> set[str]:
        """What `#...` of a link may be: the headings as the usual viewers spell them."""
        headings = re.findall(r"^#+ (.*)", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w -]", "", text).strip().lower().replace(" ", "-") for text in headings}

    def __str__(self) -> str:
        return self.name


ALL_PAGES = [Page(path) for path in PAGES]
BLOCKS = [block for page in ALL_PAGES for block in page.blocks]
COMMANDS = [block for block in BLOCKS if block.commands]
CODE = [(page.name, span) for page in ALL_PAGES for span in page.code]
each_page = pytest.mark.parametrize("page", ALL_PAGES, ids=str)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """One folder for all commands, in the order of the pages: a later one may use what an earlier one made."""
    with pytest.MonkeyPatch.context() as patch:
        made = Workshop(tmp_path_factory.mktemp("clone"), patch)
        made.add_data()
        yield made


@pytest.mark.parametrize("block", COMMANDS, ids=str)
def test_the_commands_of_a_block_run(block, workshop):
    """Each ends as it should, on made-up data and small settings."""
    for command in block.commands:
        run_any(command, workshop)


def run_any(command: str, workshop: Workshop) -> str:
    """Run a command, or, of those that install or fetch, check the form; returns what it printed."""
    program, *arguments = words(command)
    if program.endswith(".sh"):
        return run_shell(command, workshop)
    if program in ("torchrun", "sbatch"):
        parse_only(started_by(command))
        return ""
    if program in FORM_ALONE:
        check_form(command)
        return ""
    assert program == "python", f"`{command}`: the tests do not know how to run {program}"
    if arguments[:2] == ["-m", "venv"]:
        return ""
    return workshop.run(command).out


def started_by(command: str) -> str:
    """The command that torchrun or a job file starts: `python scripts/X.py ...`."""
    job = re.search(r"scripts/slurm/[\w.]+", command)
    assert not job or (ROOT / job.group()).is_file(), f"`{command}`: there is no {job.group()}"
    return "python " + command[re.search(r"scripts/\w+\.py", command).start() :]


def run_shell(command: str, workshop: Workshop) -> str:
    """A shell script: what it starts is run in turn, except for pip and pytest."""
    if command in workshop.said:
        return workshop.said[command]
    started = workshop.shell(command)
    assert started, f"`{command}` starts nothing"
    said = ""
    for step in started:
        if step.startswith("python -m pip install"):
            check_form(step.removeprefix("python -m "))
        elif not step.startswith("python -m pytest"):
            said += workshop.run(step).out
    workshop.said[command] = said
    return said


def check_form(command: str) -> None:
    """What is installed has the extras that are named; what is fetched has an address; files are there."""
    program, *arguments = words(command)
    for extras in re.findall(r"\[([\w,]+)\]", " ".join(arguments) if program == "pip" else ""):
        unknown = set(extras.split(",")) - EXTRAS.keys()
        assert not unknown, f"`{command}`: pyproject.toml has no extra {', '.join(unknown)}"
    if program == "git":
        assert arguments[0] in ("clone", "pull") and (
            len(arguments) == 1 or re.match(r"(https://|git@|<)", arguments[1])
        )
    if program == "export":
        assert all(re.fullmatch(r"[A-Z_]+=\S+", argument) for argument in arguments), f"`{command}`: no NAME=value"
    if program == "conda":
        for file in re.findall(r"[\w/]+\.ya?ml\b", command):
            assert (ROOT / file).is_file(), f"`{command}`: there is no {file}"


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_holds_commands_or_output_but_not_both(block):
    """A line between commands that no program begins, or one of a program that is not known here, would go untried."""
    others = [line for line in block.lines if line not in block.commands]
    odd = others if block.commands else [line for line in others if re.match(UNKNOWN_PROGRAMS, line)]
    assert not odd, f"{block}: the tests do not know how to run {odd[0]!r}"


def test_the_demo_prints_what_the_readme_shows(workshop):
    """The lines of the block after `scripts/demo.sh`, with other numbers."""
    index = next(i for i, block in enumerate(BLOCKS) if "scripts/demo.sh" in block.commands)
    shown = BLOCKS[index + 1]
    assert not shown.commands
    printed = {without_numbers(line) for line in run_shell("scripts/demo.sh", workshop).splitlines()}
    for line in shown.lines:
        assert without_numbers(line) in printed, f"README.md, line {shown.line}: {line!r} is not among what it prints"


def without_numbers(line: str) -> str:
    return re.sub(r"\d+(\.\d+)?", "#", line.strip())


@pytest.mark.parametrize(
    "command", [span for _, span in CODE if re.match(r"(python )?scripts/\w+\.(py|sh) ", span)], ids=str
)
def test_a_command_in_the_text_is_one(command):
    """Script and settings exist; a command with a <placeholder> names a script at least."""
    command = command if command.startswith("python ") else f"python {command}"
    if "<" in command or ".sh " in command:
        assert "<" in words(command)[1] or (ROOT / words(command)[1]).is_file()
    else:
        parse_only(command)


def test_installations_in_the_text_name_extras_that_exist():
    """`pip install ...` and `conda ...` between backticks."""
    for _, span in CODE:
        if re.match(r"(pip|conda) ", span):
            check_form(span)


def known_settings() -> set[str]:
    """Every setting of every script, by its full name and by its last parts."""
    schemas = {schema_of(script) for script in SCRIPTS if uses_settings(script)}
    names = {name for schema in schemas for name in setting_names(schema)}
    return names | {part for name in names for part in (name.rpartition(".")[2], name.partition(".")[2])} | PLACEHOLDERS


def test_every_setting_that_is_named_exists():
    """`x.y=value` in the text and in the commands."""
    known = known_settings()
    groups = {name.partition(".")[0] for name in known if "." in name}  # as a whole they may be null
    commands = [(block.page, line) for block in COMMANDS for line in block.commands if not line.startswith("export ")]
    found = [
        (name, page, span)
        for page, span in CODE + commands
        for name, value in re.findall(r"(?:^|\s)([a-z_][\w.]*)=(\S*)", span)
        if not (name in groups and value == "null")
    ]
    known |= {field.name for field in fields(ChainConfig)}  # a stage may be null as a whole
    wrong = [item for item in found if item[0] not in known and not is_below_a_free_setting(item[0])]
    assert len(found) > 30
    assert not wrong, f"no script has these settings: {wrong}"


def is_below_a_free_setting(name: str) -> bool:
    """`finetune_ldm.settings.trainer.precision` of a chain: any setting of that stage."""
    stage, _, rest = name.partition(".settings.")
    return bool(rest) and rest in known_settings() and (ROOT / "scripts" / f"{stage}.py").is_file()


@each_page
def test_every_relative_link_and_picture_is_there(page):
    """[text](target) and ![text](target); #heading within this page or another."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.prose):
        if re.match(r"https?://|mailto:", target):
            continue
        path, _, heading = target.partition("#")
        there = (page.path.parent / path).resolve() if path else page.path
        assert there.exists(), f"{page}: there is no {path}"
        if heading:
            anchors = next(other.anchors for other in ALL_PAGES if other.path == there)
            assert heading in anchors, f"{page}: no heading of {there.name} makes #{heading}"


@each_page
def test_every_file_that_is_named_is_there(page):
    """Paths of the repository between backticks, patterns such as configs/*_god.yaml among them."""
    for span in page.code:
        for path in re.findall(r"(?:^|\s)((?:configs|scripts|mindvis|tests|docs|\.github)/[\w./*-]*)(?=$|\s)", span):
            assert list(ROOT.glob(path.rstrip("/"))), f"{page}: there is no {path}"


def test_every_name_of_the_package_exists():
    """mindvis.module.name between backticks."""
    for name in {name for _, span in CODE for name in re.findall(r"\bmindvis(?:\.\w+)+", span)}:
        assert pydoc.locate(name) is not None, f"there is no {name}"


def test_readme_is_a_front_page():
    """At most 9 KB, and a link to every other page."""
    front, *others = ALL_PAGES
    assert front.name == "README.md"
    assert len(front.text.encode()) <= FRONT_PAGE_BYTES
    assert not [page.name for page in others if f"]({page.name})" not in front.text]


def test_data_page_says_what_check_data_says():
    """The sizes and the pages of the downloads, as `check_data.py` prints them."""
    page = next(page for page in ALL_PAGES if page.name == "docs/data.md").text
    known = [value for value in vars(check).values() if isinstance(value, check.Origin)]
    assert len(known) >= 4
    for origin in known:
        address = origin.page.split()[0].rstrip(",")
        assert address in page or (ROOT / address).is_file(), f"docs/data.md lacks the address {address}"
    for origin in (check.HCP, check.GOD, check.BOLD5000):
        assert f"| size | {origin.size} |" in page, f"docs/data.md lacks the size {origin.size!r}"
