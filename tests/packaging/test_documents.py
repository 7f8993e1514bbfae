"""The documents agree with the code: layers, links, files. Their commands are read by cli/test_options.py."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "tests/README.md"])


def drawings() -> dict[str, list[set[str]]]:
    """Container -> its lines in ARCHITECTURE.md, each the set of rooms that it names."""
    blocks = re.findall(r"^```layers (\S+)\n(.*?)^```", (ROOT / "ARCHITECTURE.md").read_text(), re.M | re.S)
    return {
        name: [set(re.split(r"  +", line)[0].split(" | ")) for line in text.splitlines()]
        for name, text in blocks
    }


def test_the_drawings_of_layers_are_the_contracts_that_import_linter_checks() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    checked = {
        container: [set(layer.split(" | ")) for layer in contract["layers"]]
        for contract in contracts
        if contract.get("exhaustive")
        for container in contract["containers"]
    }
    assert drawings() == checked


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        if anchor:
            titles = re.findall(r"^#+ (.*)", target.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in anchors, link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_file_that_a_document_names_exists(document: Path) -> None:
    rooms = "synth_core|flows|tasks|tests|benchmarks|scripts|prompts|deployments|examples"
    for name in re.findall(rf"`((?:{rooms})/[\w./-]+)`", document.read_text()):
        assert (ROOT / name).exists() or (document.parent / name).exists(), name


def test_a_visitor_sees_the_whole_readme_on_a_few_screens() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 150
