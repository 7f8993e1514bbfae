"""What runs beside torch imports with torch and pydantic alone, so that it runs on a bare GPU machine."""

from __future__ import annotations

import subprocess
import sys

_CHILD = """
import importlib, pkgutil, re, sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

there, waiting = set(), ["torch", "pydantic"]
while waiting:
    name = re.match(r"[\\w.-]+", waiting.pop())[0].lower().replace("_", "-")
    if name not in there:
        there.add(name)
        try:
            waiting += [need for need in requires(name) or () if "extra ==" not in need]
        except PackageNotFoundError:
            pass
installed = packages_distributions()

class Bare:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *more):
        top = name.partition(".")[0]
        packages = {package.lower().replace("_", "-") for package in installed.get(top, ())}
        absent = packages and not packages & there and top != "synth_core"
        return None if absent else self.finder.find_spec(name, *more)

sys.meta_path[:] = map(Bare, sys.meta_path)
for room in ("operators", "synthesis", "validation"):
    package = importlib.import_module(f"synth_core.{room}")
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
"""


def test_operators_synthesis_and_validation_need_torch_and_pydantic_alone() -> None:
    done = subprocess.run([sys.executable, "-c", _CHILD], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
