"""Measures the contamination filter: disguised benchmark problems that it catches, and false alarms.

    python benchmarks/contamination.py PATH_OF_KernelBench [FOLDER_OF_INNOCENT_PROGRAMS]

Disguises every problem of levels 1 to 3 of the public benchmark, and applies the filter `contaminated`: first
to the text alone (as `synth contamination scan`), then, to what that misses, with the captured graph (as in a
run). Prints the share caught, and the tiers that caught it. It executes the benchmark's code without a
sandbox, so use the public repository only.
"""

from __future__ import annotations

import ast
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from synth_core.filtering.contamination import scan_files
from synth_core.filtering.fingerprints import Fingerprints
from synth_core.filtering.reference import kernelbench
from synth_core.records import Graph

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from kernelbench_facts import captured

_METHODS = frozenset(
    {"relu", "tanh", "sigmoid", "mean", "sum", "clamp", "exp", "softmax", "logsumexp", "matmul", "bmm"}
)


class _Rename(ast.NodeTransformer):
    """Renames everything that the program names itself: values, attributes, arguments."""

    def __init__(self, own: set[str]) -> None:
        self._own = own

    def _new(self, name: str) -> str:
        return f"{name}_alt" if name in self._own else name

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name(self._new(node.id), node.ctx)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        return ast.arg(self._new(node.arg), node.annotation)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        on_self = isinstance(node.value, ast.Name) and node.value.id == "self"
        return ast.Attribute(node.value, self._new(node.attr) if on_self else node.attr, node.ctx)


def renamed(tree: ast.Module) -> None:
    own = {arg.arg for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) for arg in node.args.args}
    own |= {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    own |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
    _Rename(own - {"self"}).visit(tree)


def resized(tree: ast.Module) -> None:
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            for node in ast.walk(statement):
                if isinstance(node, ast.Constant) and type(node.value) is int and node.value > 8:
                    node.value *= 2


def reordered(tree: ast.Module) -> None:
    """Reverse the order of statements in __init__. Only the text is compared, so it need not run."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            node.body = [node.body[0], *reversed(node.body[1:])]


class _Respell(ast.NodeTransformer):
    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        match node.func:
            case ast.Attribute(value=value, attr=name) if name in _METHODS and node.args:
                if ast.unparse(value) in ("torch", "F", "nn.functional", "torch.nn.functional"):
                    return ast.Call(
                        ast.Attribute(node.args[0], name, ast.Load()), node.args[1:], node.keywords
                    )
        return node


def respelled(tree: ast.Module) -> None:
    _Respell().visit(tree)


def _forwards(tree: ast.Module) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "forward"]


def padded(tree: ast.Module) -> None:
    """Add steps without effect before the return."""
    for forward in _forwards(tree):
        if isinstance(last := forward.body[-1], ast.Return) and isinstance(last.value, ast.Name):
            name = last.value.id
            forward.body[-1:] = ast.parse(
                f"{name} = {name}.contiguous()\n{name} = {name}.clone()\nreturn {name}"
            ).body


def extended(tree: ast.Module) -> None:
    """Add one more step at the end, not in the catalog. The result still contains the whole problem."""
    for forward in _forwards(tree):
        if isinstance(last := forward.body[-1], ast.Return) and last.value is not None:
            last.value = ast.Call(ast.parse("torch.erf", mode="eval").body, [last.value], [])


DISGUISES: dict[str, tuple[Callable[[ast.Module], None], ...]] = {
    "verbatim, reformatted": (),
    "resized": (resized,),
    "renamed": (renamed,),
    "init reordered": (reordered,),
    "respelled": (respelled,),
    "padded with identities": (padded,),
    "all of these": (resized, renamed, reordered, respelled, padded),
    "a step outside the catalog": (extended,),
}


def disguise(source: str, changes: tuple[Callable[[ast.Module], None], ...]) -> str:
    tree = ast.parse(source)
    for change in changes:
        change(tree)
    return ast.unparse(ast.fix_missing_locations(tree))


def graph_of(source: str) -> Graph | None:
    try:
        return captured(source)
    except Exception:
        return None


def main(folder: Path, innocent: Path | None) -> None:
    warnings.simplefilter("ignore")
    sources = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("level[1-3]/*.py"))]
    print(f"{len(sources)} problems\n{'disguise':27} {'by text':>8} {'with graph':>11}  tiers")
    for name, changes in DISGUISES.items():
        texts = [disguise(source, changes) for source in sources]
        by_text = [kernelbench().match(Fingerprints.of(text)) for text in texts]
        full = [
            match or kernelbench().match(Fingerprints.of(text, graph_of(text)))
            for match, text in zip(by_text, texts, strict=True)
        ]
        tiers = Counter(match.tier for match in full if match)
        shares = [sum(match is not None for match in found) / len(texts) for found in (by_text, full)]
        print(f"{name:27} {shares[0]:8.1%} {shares[1]:11.1%}  {dict(tiers.most_common())}", flush=True)
    if innocent:
        findings = list(scan_files([innocent]))
        accused = [finding for finding in findings if finding.contaminated]
        print(f"innocent programs accused: {len(accused)} of {len(findings)}")
        for finding in accused[:10]:
            print(f"  {Path(finding.path).name}: {finding.tier}, {finding.reference}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
