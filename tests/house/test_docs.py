"""What a document names is there: paths, links, anchors, modules, commands and their flags."""

from __future__ import annotations

import argparse
import re
import shlex
from functools import cache
from pathlib import Path
from unittest.mock import patch

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "web" / "docs").glob("*.md"),
     *(ROOT / ".github").rglob("*.md"), *(ROOT / "experiments").rglob("README.md"), *(ROOT / "findings").glob("*.md")]
)  # fmt: skip
TOP = ("realrag", "nodes", "train", "tests", "docs", "web", "workflows", "experiments", "findings", "tools", ".github")
# Fenced blocks, then spans of code in what is left.
FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.replace("`", "").lower()).strip().replace(" ", "-") for title in titles}


def of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=of)
def test_every_link_leads_somewhere(page):
    missing = []
    for target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            missing.append(target)
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=of)
def test_every_path_that_is_named_is_there(page):
    """Words of code that begin with a top-level folder of ours."""
    code = [*FENCE.findall(page.read_text()), *SPAN.findall(prose(page))]
    names = {word.split("::")[0].rstrip("/,:") for text in code for word in text.split()}
    missing = [
        name
        for name in names
        if name != "realrag/requirements.txt"  # seen from ComfyUI's custom_nodes
        and re.fullmatch(r"[\w./-]+", name)
        and name.split("/")[0] in TOP
        and "/" in name
        and not (ROOT / name).exists()
    ]
    assert not missing


def test_every_test_that_is_named_is_there():
    there = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    for path in (ROOT / "tests").rglob("test_*.py"):
        there |= set(re.findall(r"^def (test_\w+)\(", path.read_text(), re.MULTILINE))
    named = {
        (of(page), name)
        for page in PAGES
        for code in [*FENCE.findall(page.read_text()), *SPAN.findall(prose(page))]
        for name in re.findall(r"\b(test_\w+)", code)
    }
    assert len(named) > 30 and not {(page, name) for page, name in named if name not in there}


@cache
def parsers() -> dict[str, argparse.ArgumentParser]:
    """ "realrag index" and the like -> its parser."""
    from realrag.commands.main import parser
    from realrag_train.__main__ import COMMANDS
    from realrag_train.__main__ import main as train

    found: dict[str, argparse.ArgumentParser] = {}

    def walk(name: str, one: argparse.ArgumentParser) -> None:
        found[name] = one
        for action in one._actions:
            if isinstance(action, argparse._SubParsersAction):
                for word, child in action.choices.items():
                    walk(f"{name} {word}", child)

    walk("realrag", parser())
    found["train"] = argparse.ArgumentParser()
    found["train"].add_subparsers()
    for name in {
        *COMMANDS,
        "start",
        "embed",
        "imagine",
        "index",
        "evaluate",
    }:  # the trainer makes the parser of a command when that is called
        shown: list[argparse.ArgumentParser] = []
        with patch.object(argparse.ArgumentParser, "print_help", lambda self, file=None: shown.append(self)):
            with pytest.raises(SystemExit):
                train([name, "--help"])
        walk(f"train {name}", shown[0])
    return found


def commands(page: Path) -> list[list[str]]:
    """Every command of ours in the page, in words: `realrag ...`, `python -m train ...` and the like."""
    text = page.read_text()
    lines = [line for block in FENCE.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    found = []
    for line in [*lines, *SPAN.findall(prose(page))]:
        match = re.search(r"(?:^|[\s/])(realrag-train|realrag|-m (?:realrag_train|realrag|train))(?= |$)(.*)", line)
        if (
            not match
            or match[2].startswith(" import ")
            or (line.lstrip().startswith(("git ", "pip ", "cd ")) and "&&" not in line)
        ):
            continue
        program = "train" if "train" in match[1] else "realrag"
        rest = re.split(r"\s#|[|;&]|\s>", match[2])[0]
        try:
            found.append([program, *shlex.split(rest)])
        except ValueError:  # an apostrophe in a placeholder
            found.append([program, *rest.split()])
    return found


@pytest.mark.parametrize("page", PAGES, ids=of)
def test_every_command_and_flag_that_is_named_exists(page):
    missing = []
    for words in commands(page):
        name = words[0]
        for word in words[1:]:
            if f"{name} {word}" in parsers():
                name = f"{name} {word}"
            elif not word.startswith("-"):
                break
        subcommands = any(isinstance(action, argparse._SubParsersAction) for action in parsers()[name]._actions)
        if (
            subcommands
            and len(words) > name.count(" ") + 1
            and re.fullmatch(r"[a-z][a-z-]+", words[name.count(" ") + 1])
        ):
            missing.append(" ".join(words))
            continue
        flags = parsers()[name]._option_string_actions
        for word in words:
            flag = word.split("=")[0]
            if re.fullmatch(r"--?[a-z][a-z-]*", flag) and flag not in flags:
                missing.append(f"{name}: {flag}")
    assert not missing


def test_the_pages_name_many_commands_and_the_check_finds_a_wrong_one(tmp_path):
    assert sum(len(commands(page)) for page in PAGES) > 60
    page = tmp_path / "page.md"
    page.write_text("`realrag index x --nowhere`\n\n```\npython -m train nothing\n```\n")
    assert commands(page) == [["train", "nothing"], ["realrag", "index", "x", "--nowhere"]]
    with pytest.raises(AssertionError, match="nothing"):
        test_every_command_and_flag_that_is_named_exists(page)


def test_every_finding_has_its_row():
    table = (ROOT / "findings" / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+\.sh)` \| \S", table, re.MULTILINE)
    assert listed == sorted(path.name for path in (ROOT / "findings").glob("*.sh"))
