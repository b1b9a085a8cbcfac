"""What README, CONTRIBUTING and docs/ tell people to type exists, their links lead somewhere, and README is short."""

import importlib.util
import re
import shlex
from pathlib import Path

import click
import pytest

from sppnet_cli import read_image
from sppnet_cli.cli import _register, app

ROOT = Path(__file__).parents[2]
PAGES = sorted(str(path.relative_to(ROOT)) for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z][a-z0-9-]*):", MAKEFILE, re.MULTILINE))
VARIABLES = set(re.findall(r"\$\(([A-Z_]+)\)|\$\(if \$\(([A-Z_]+)\)", MAKEFILE))
WORDS = 1200  # of README.md at most
OTHERS = {
    "--no-index",
    "--find-links",
    "--shm-size",
    "--nproc-per-node",
    "--json-report",
}  # of pip, docker, torchrun
_register()


def text_of(page):
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL)


def shell_lines(page):
    """Commands of code blocks, as words without comments, variables set before them and `torchrun`."""
    source = "\n".join(blocks(page, "sh")) + "\n" + "\n".join(_doors(page))
    for line in source.replace("\\\n", " ").splitlines():
        for part in re.split(r"\s&&\s", line):
            words = shlex.split(part, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                words = words[1:]
            if words[:1] == ["torchrun"]:
                words = ["sppnet", *words[words.index("sppnet_cli") + 1 :]]
            if words:
                yield words


def _doors(page):
    """Commands in the cells of tables."""
    return (
        re.findall(r"^\| [^|`]+ \| `([^`]+)` \|", text_of(page), re.MULTILINE) if page == "README.md" else []
    )


def spans(page):
    """What stands between backticks outside of code blocks."""
    text = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
    return [span.replace("\n", " ").replace("\\|", "|") for span in re.findall(r"`([^`]+)`", text)]


def commands():
    """Every command and group by its words."""
    found, waiting = {}, [((), app)]
    while waiting:
        name, command = waiting.pop()
        found[name] = command
        waiting += [((*name, inner), each) for inner, each in getattr(command, "commands", {}).items()]
    return found


def options_of(command):
    names = [name for each in command.params for name in (*each.opts, *each.secondary_opts)]
    return {*names, "--help", "-h"}


COMMANDS = commands()
ALL_OPTIONS = set().union(*map(options_of, COMMANDS.values())) | OTHERS


def split_command(words):
    """The longest command that words after `sppnet` begin with, and the words after it."""
    length = max(k for k in range(len(words) + 1) if tuple(words[:k]) in COMMANDS)
    return tuple(words[:length]), words[length:]


def sppnet_lines():
    lines = {tuple(words[1:]): page for page in PAGES for words in shell_lines(page) if words[0] == "sppnet"}
    return [pytest.param(words, id=" ".join(words)) for words in lines]


@pytest.mark.parametrize("words", sppnet_lines())
def test_a_quoted_command_is_one(words):
    """Click itself parses it: command, options, their values, and what must be given."""
    name, rest = split_command(words)
    command = COMMANDS[name]
    assert name or rest[0].startswith("--"), f"no such command: {words[0]}"
    context = click.Context(app)
    if isinstance(command, click.Group) and not command.invoke_without_command:
        pytest.fail(f"{' '.join(name)} wants a subcommand")
    command.make_context(" ".join(name), list(rest), parent=context)


@pytest.mark.parametrize("words", sppnet_lines())
def test_a_quoted_command_runs_dry(words, sppnet, monkeypatch):
    """On the tiny profile; one on files of the reader's own may end with the line that they are missing."""
    name, rest = split_command(words)
    if "--dry-run" not in options_of(COMMANDS[name]):
        pytest.skip("has no dry run")
    monkeypatch.setenv("SPPNET_PROFILE", "tiny")
    code, _, err = sppnet(*name, *rest, "--dry-run")
    assert code == 0 or (code == 3 and any(err.startswith(f"error: {word.rstrip('/')}") for word in rest)), (
        err
    )


@pytest.mark.slow
def test_the_tutorial_runs(sppnet):
    for words in shell_lines("docs/tutorial.md"):
        code, _, err = sppnet(*words[1:], "-q")
        assert code == 0, err
    for block in blocks("docs/tutorial.md", "python"):
        exec(compile(block, "docs/tutorial.md", "exec"), {})  # noqa: S102 - the page is ours


def test_quoted_targets_and_variables_of_make_exist():
    variables = {name for pair in VARIABLES for name in pair if name} | {"CPU", "ALL"}
    lines = [words for page in PAGES for words in shell_lines(page) if words[0] == "make"]
    lines += [shlex.split(span) for page in PAGES for span in spans(page) if re.match(r"make [a-zA-Z]", span)]
    assert len(lines) > 20
    for _, *words in lines:
        for word in words:
            name, assigned, _ = word.partition("=")
            assert name in (variables if assigned else TARGETS), f"make {' '.join(words)}: {name}"


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_options_in_sentences_exist(page):
    for span in spans(page):
        if span.startswith("sppnet "):
            words = span.split()[1:]
            name, rest = split_command(words)
            assert name or rest[0].startswith("-"), f"`{span}`: no such command"
            known = options_of(COMMANDS[name])
        elif re.match(r"--?[a-z]", span):
            rest, known = span.split(), ALL_OPTIONS
        else:
            continue
        quoted = [word.partition("=")[0] for word in rest if re.match(r"--[a-z]", word)]
        assert [word for word in quoted if word not in known] == [], f"`{span}`"


def slugs(page):
    """The anchors that GitHub makes of a page's headings."""
    text = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$|`[^`\n]*`", "", text_of(page), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", target):
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / page).parent / file if file else ROOT / page
        assert path.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in slugs(str(path.resolve().relative_to(ROOT))), f"{page}: {target}"


def test_every_page_is_reached_from_the_readme():
    for page in PAGES:
        if page != "README.md":
            assert f"({page})" in text_of("README.md"), f"README.md has no link to {page}"


def test_the_readme_is_short_and_has_its_picture():
    assert len(text_of("README.md").split()) <= WORDS
    assert (ROOT / "docs/images/spp.png").stat().st_size < 300_000


def test_lines_of_python_in_the_readme_run(capsys):
    lines = [words for words in shell_lines("README.md") if words[:2] == ["python", "-c"]]
    assert len(lines) == 1
    exec(compile(lines[0][2], "README.md", "exec"), {})  # noqa: S102 - the page is ours
    assert capsys.readouterr().out == "torch.Size([1, 12800])\n"


@pytest.mark.slow
def test_the_picture_is_drawn(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("draw_picture", ROOT / "docs/draw_picture.py")
    drawing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drawing)
    monkeypatch.setattr(drawing, "PICTURE", tmp_path / "spp.png")
    monkeypatch.chdir(tmp_path)
    drawing.main()
    assert read_image(tmp_path / "spp.png").std() > 30


def test_no_cell_holds_two_numbers():
    """Ours and the paper's never share a cell without a word between."""
    for page in ("README.md", "docs/results.md"):
        cells = [cell for line in text_of(page).splitlines() if line[:1] == "|" for cell in line.split("|")]
        assert len(cells) > 100
        assert [cell for cell in cells if re.search(r"\d\s*[(/,]\s*\d+\.\d", cell)] == []
