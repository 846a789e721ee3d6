"""The committed pages: links lead somewhere, and maps and tables of keys leave nothing out."""

import dataclasses
import re
import subprocess
from pathlib import Path

import pytest

from entrob.envs import environments
from entrob.naming import Label
from entrob.regularizers import HOOKS
from entrob.suite.declaration import Rules
from entrob.sweep import reading
from entrob.sweep.experiment import Method

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"


def pages() -> list[Path]:
    """Every Markdown file of the tree, but what runs and environments leave in it."""
    tops = ("benchmarks", "entrob", "results", "tests", ".github")
    found = [*ROOT.glob("*.md"), *(path for top in tops for path in (ROOT / top).rglob("*.md"))]
    return sorted(found)


def text(page: str) -> str:
    return (ROOT / page).read_text()


def links(page: Path) -> list[str]:
    """Targets of the page's links and images, code left out."""
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", prose))


def anchors(page: Path) -> set[str]:
    """The names that a page's headings have as link targets."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page):
    for target in links(page):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{target} of {page.relative_to(ROOT)}"
        if anchor:
            assert anchor in anchors(there), f"{target} of {page.relative_to(ROOT)}"


def test_links_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A b: `c`\n[x](a.md) ![y](b.png#c)\n`[n](o.md)`\n```\n[n](o.md)\n```\n")
    assert links(page) == ["a.md", "b.png#c"]
    assert anchors(page) == {"a-b-c"}


def test_every_folder_of_code_is_on_the_maps():
    folders = {p.parent.name for p in (ROOT / "entrob").glob("*/__init__.py")}
    assert folders
    for folder in folders:
        assert f"`entrob/{folder}/`" in text("README.md")
        assert f"`{folder}/`" in text("entrob/README.md")


def test_every_exported_folder_is_in_the_index_of_results():
    listed = subprocess.run(
        ["git", "ls-files", "results"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    files = listed or [str(p.relative_to(ROOT)) for p in RESULTS.rglob("*") if p.is_file()]
    names = {name.split("/")[1] for name in files} - {"README.md"}
    assert names
    for name in names:
        assert f"`{name}" in text("results/README.md")


def test_every_key_of_a_file_is_explained():
    """Keys of experiments and methods, of the leaderboard's rules, and the presets' names."""
    page = text("benchmarks/README.md")
    fields = {field.name for field in dataclasses.fields(Method)}
    fields = {"name", *fields - set(Label._fields)}
    for key in {*reading._TOP, *reading._HYPER, *fields}:
        assert re.search(rf"\b{key}\b", page), key
    for field in dataclasses.fields(Rules):
        assert f"| `{field.name}` | {field.default} |" in text("entrob/suite/README.md")


def test_every_hook_is_in_the_protocol_with_its_arguments():
    page = text("entrob/regularizers/README.md")
    for hook, arguments in HOOKS.items():
        assert f"| `{hook}` | `({', '.join(arguments)}) ->" in page


def test_every_environment_is_in_the_table_of_tasks():
    for name in environments.names():
        assert name.removeprefix("minigrid/") in text("entrob/envs/README.md")
