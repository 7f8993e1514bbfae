"""`synth validate`: check files, and print each result as it comes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from synth_core.errors import UsageError
from synth_core.settings import Settings
from synth_core.validation.public import Validation, Validator


def judge_files(paths: Sequence[Path], settings: Settings, *, as_json: bool) -> bool:
    """Validate files and folders. True if every program is accepted.

    Prints one line per file, and the reason for a rejection. With `as_json`, prints one JSON object per file.
    """
    if not paths:
        raise UsageError("name at least one PATH: a file, or a folder of *.py")
    files = list(_expand(paths))
    settings = settings.resolved()
    console = Console(highlight=False)
    accepted = 0
    workers, cache_dir = settings.num_worker, settings.cache_dir
    with Validator(settings.validation, workers=workers, cache_dir=cache_dir) as validator:
        for result in validator.validate_many(files):
            accepted += result.accepted
            if as_json:
                print(result.model_dump_json(), flush=True)
            else:
                _show(result, console)
    if not as_json and len(files) > 1:
        console.print(f"{accepted} of {len(files)} accepted")
    return accepted == len(files)


def _expand(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            # Editors leave hidden files beside the ones they edit, and some are links to nowhere.
            inside = sorted(each for each in path.glob("[!.]*.py") if each.is_file())
            if not inside:
                raise UsageError(f"{path} contains no *.py file")
            yield from inside
        elif path.is_file():
            yield path
        elif path.exists():
            raise UsageError(f"{path} is no file; name Python files")
        else:
            raise UsageError(f"{path} does not exist")


def _show(result: Validation, console: Console) -> None:
    path = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in result.path)
    if result.accepted:
        broken = [rule for rule, held in result.contract.items() if not held]
        note = f"  [yellow]warns: {escape(', '.join(broken))}[/]" if broken else ""
        console.print(f"[green]accepted[/]  {escape(path)}{note}", soft_wrap=True)
    else:
        console.print(f"[red]rejected[/]  {escape(path)}", soft_wrap=True)
        console.print(f"          {result.stage}: {result.category}", soft_wrap=True)
        for line in result.detail.splitlines():
            console.print(f"          {escape(line)}", soft_wrap=True)
