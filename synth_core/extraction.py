"""Finds the program in a model's answer and names its class, or says why there is no program.

Answers are read in a child process with limits (limited.py), so no text ends the process that asks. Every
step is linear in the length of the answer. The code stays as the answer gives it, with two changes that do
not alter its meaning. A demonstration (`if __name__ == "__main__":` or a top-level `print`) is removed if it
shares no line with other code. The class gets its new name (renaming.py). Both changes use positions from
the syntax tree, so comments and layout stay.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from synth_core import form
from synth_core.errors import UsageError
from synth_core.limited import Unreadable, limited
from synth_core.operators.catalog import find
from synth_core.program import syntax
from synth_core.program.naming import program_name
from synth_core.program.renaming import program_class, rename_class
from synth_core.records import Candidate, Category, Outcome, Program, Stage, Verdict

MAX_SOURCE = 1_000_000  # characters; the static gate rejects longer programs, so they are not parsed

_FENCE = re.compile(r"(?P<indent>[ \t]*)(?P<marks>`{3,}+|~{3,}+)[ \t]*+(?P<language>[\w.+-]*+)[^`]*+")
_PYTHON = frozenset({"", "python", "py", "python3", "pytorch", "torch"})
_CODE_START = re.compile(r"^(?:import [\w.]+|from [\w.]+ import\b|class \w+|def \w+|@\w)", re.MULTILINE)
_CLASS = re.compile(r"^[ \t]*class\s", re.MULTILINE)
_MOST_STARTS = 20  # lines that look like the start of bare code; only the first 20 are tried
_MOST_TRIES = 60  # texts that are parsed to find where bare code ends
_MOST_PARSED = 4 * MAX_SOURCE  # characters of them together
_SPACE = r"[^\S\r\n]"  # in a line: `\s*` at the start of every blank line would take quadratic time
_STATED = re.compile(
    rf"^(?:{_SPACE}|[>*_#`-])*+final{_SPACE}+pattern(?:{_SPACE}|[*_`])*[:=](?P<names>.+)$",
    re.IGNORECASE | re.MULTILINE,
)
_REFUSAL = re.compile(
    r"\W*(?:sorry|i(?:'|’)?m sorry|i am sorry|i apologi[sz]e|i can(?:no|'|’)t|i(?:'|’)?m unable|i am unable"
    r"|i(?:'|’)?m not able|i am not able|i won(?:'|’)t|i will not|as an ai\b|unfortunately, i)",
    re.IGNORECASE,
)
_BROKEN = (SyntaxError, ValueError, RecursionError, MemoryError)  # everything that parsing can raise


@dataclass(frozen=True)
class _Block:
    code: str
    closed: bool = True


def extract_programs(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Give every live candidate the program in its answer, or a verdict that says why there is none."""
    return [_extract(candidate) if candidate.alive else candidate for candidate in candidates]


def refuses(text: str) -> bool:
    """Whether the model refused: the answer starts with a phrase such as "I'm sorry" and contains no code."""
    text = _without_thoughts(text)
    return bool(_REFUSAL.match(text[:200])) and not code_in(text)


def code_in(text: str) -> str:
    """The code in an answer, even if it does not parse. Empty if there is none."""
    try:
        return str(limited(f"{__name__}:find_code", text))
    except Unreadable:
        return ""


def find_code(text: str) -> str:
    """What `code_in` asks its child."""
    block = _find_code(_without_thoughts(text))
    return block.code if block else ""


def stated_operators(text: str) -> tuple[str, ...]:
    """The catalog names in the answer's last `Final pattern:` line. Unknown names are left out."""
    stated = [match["names"] for match in _STATED.finditer(text)]
    names: list[str] = []
    for word in re.findall(r"[A-Za-z]\w*", stated[-1] if stated else ""):
        try:
            names.append(find(word).name)
        except UsageError:
            continue
    return tuple(names)


def _extract(candidate: Candidate) -> Candidate:
    completion, prompt = candidate.completion, candidate.prompt
    assert completion is not None
    is_form = bool(prompt and prompt.template == form.TEMPLATE and "{" in completion.text)
    cut_short = completion.outcome is Outcome.TRUNCATED
    try:
        found = limited(
            f"{__name__}:read_answer", completion.text, candidate.specification.operators, is_form, cut_short
        )
    except Unreadable as error:
        found = {"category": Category.SYNTAX_ERROR, "detail": str(error)}
    if "source" in found:
        return candidate.judged(Verdict.ok(Stage.EXTRACT), program=Program.of(found["name"], found["source"]))
    return candidate.judged(Verdict.fail(Stage.EXTRACT, Category(found["category"]), found["detail"]))


def read_answer(text: str, operators: Sequence[str], is_form: bool, cut_short: bool) -> dict[str, Any]:
    """The `name` and `source` of the program in an answer, or the `category` and `detail` of why not."""
    if is_form:
        try:
            return {"name": program_name(operators), "source": form.write_program(tuple(operators), text)}
        except form.BadAnswer as error:
            return _failed(Category.SYNTAX_ERROR, f"does not follow the schema: {error}")
    text = _without_thoughts(text)
    block = _find_code(text)
    if block is None:
        return _no_code(text, cut_short)
    if cut_short and not _is_whole(block):
        return _truncated()
    if len(block.code) > MAX_SOURCE:
        detail = f"the program has {len(block.code)} characters; at most {MAX_SOURCE} are read"
        return _failed(Category.SYNTAX_ERROR, detail)
    try:
        source = _without_demonstration(block.code)
        name = program_name(stated_operators(text) or operators)
        if program_class(syntax.parse(source)):  # the static gate rejects code without a class
            source = rename_class(source, name)
    except _BROKEN as error:
        return _failed(Category.SYNTAX_ERROR, _describe(error, block.code))
    return {"name": name, "source": source}


def _failed(category: Category, detail: str) -> dict[str, Any]:
    return {"category": category, "detail": detail}


def _no_code(text: str, cut_short: bool) -> dict[str, Any]:
    """`text` holds no code."""
    if cut_short:
        return _truncated()
    begins = " ".join(text[:1000].split())[:120]
    if _REFUSAL.match(text[:200]):
        return _failed(Category.REFUSAL, f"the answer refuses: {begins}")
    return _failed(Category.NO_CODE, f"no code in the answer, which begins: {begins}")


def _truncated() -> dict[str, Any]:
    detail = "the answer reached max_tokens before the program was complete; raise --max-tokens"
    return _failed(Category.TRUNCATED, detail)


def _describe(error: BaseException, code: str) -> str:
    if not isinstance(error, SyntaxError) or error.lineno is None:
        return f"{type(error).__name__}: {error}"
    lines = syntax.lines(code)
    line = lines[error.lineno - 1].strip() if error.lineno <= len(lines) else ""
    return f"line {error.lineno}: {error.msg}: {line[:120]}"


def _without_thoughts(text: str) -> str:
    """Remove the thoughts of a reasoning model, and byte order marks and NULs at both ends."""
    return text.rpartition("</think>")[2].strip("\ufeff\x00")


def _find_code(text: str) -> _Block | None:
    """Find the program in an answer. The first of these that exists:

    1. the last fenced block with a complete program
    2. all blocks joined, if that is a complete program (some answers split it)
    3. the last block with a class
    4. the last block
    5. code without fences
    """
    blocks = list(_blocks(text))
    if not blocks:
        bare = _bare_code(text)
        return _Block(bare) if bare else None
    together = _Block("\n".join(block.code for block in blocks), blocks[-1].closed)
    for block in [*reversed(blocks), together]:
        if _is_full(block.code):
            return block
    with_class = [block for block in blocks if _CLASS.search(block.code)]
    return (with_class or blocks)[-1]


def _blocks(text: str) -> Iterator[_Block]:
    """Fenced blocks of Python code, in order. A block without a closing fence extends to the end."""
    opened: re.Match[str] | None = None
    lines: list[str] = []
    for line in syntax.lines(text):
        fence = _FENCE.fullmatch(line.rstrip())
        if opened is None:
            opened, lines = fence, []
        elif fence and not fence["language"] and fence["marks"].startswith(opened["marks"]):
            if opened["language"].lower() in _PYTHON:
                yield _Block("".join(lines))
            opened = None
        else:
            lines.append(line.removeprefix(opened["indent"]))
    if opened and opened["language"].lower() in _PYTHON and "".join(lines).strip():
        yield _Block("".join(lines), closed=False)


def _bare_code(text: str) -> str:
    """Code without fences: from a line that looks like code to the last line with which it still parses."""
    if len(text) > MAX_SOURCE:
        return ""
    starts = [match.start() for match in _CODE_START.finditer(text)][:_MOST_STARTS]
    budget = _Budget()
    for start in starts:
        part = _parsing_head(text[start:], budget)
        if re.search(r"^class\s", part, re.MULTILINE):
            return part
    # The code is incomplete. The caller reports what is wrong with it.
    return text[starts[0] :] if starts and re.search(r"^class\s", text, re.MULTILINE) else ""


@dataclass
class _Budget:
    """What may still be parsed to find the end of bare code."""

    tries: int = _MOST_TRIES
    characters: int = _MOST_PARSED

    def allows(self, text: str) -> bool:
        self.tries -= 1
        self.characters -= len(text)
        return self.tries >= 0 and self.characters >= 0


def _parsing_head(text: str, budget: _Budget) -> str:
    """The longest prefix of whole lines that parses; empty if it is not found within the budget."""
    lines = syntax.lines(text)
    end = len(lines)
    while end and budget.allows(head := "".join(lines[:end])):
        try:
            syntax.parse(head)
        except SyntaxError as error:
            end = min(end - 1, (error.lineno or 1) - 1)
        except _BROKEN:
            break
        else:
            return head
    return ""


def _is_whole(block: _Block) -> bool:
    return block.closed and _is_full(block.code)


def _is_full(code: str) -> bool:
    if len(code) > MAX_SOURCE:
        return False
    try:
        tree = syntax.parse(code)
    except _BROKEN:
        return False
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    return program_class(tree) is not None and {"get_inputs", "get_init_inputs"} <= functions


def _without_demonstration(code: str) -> str:
    """Remove top-level prints and `if __name__ == "__main__":` blocks that share no line with other code."""
    together: list[list[ast.stmt]] = []  # statements that share lines
    for node in syntax.parse(code).body:
        if together and node.lineno == together[-1][-1].end_lineno:
            together[-1].append(node)
        else:
            together.append([node])
    gone = {
        number
        for nodes in together
        if all(map(_is_demonstration, nodes))
        for number in range(nodes[0].lineno - 1, nodes[-1].end_lineno or 0)
    }
    kept = [line for number, line in enumerate(syntax.lines(code)) if number not in gone]
    return "".join(kept).rstrip() + "\n"


def _is_demonstration(node: ast.stmt) -> bool:
    match node:
        case ast.If(test=ast.Compare(left=left, ops=[ast.Eq()], comparators=[right]), orelse=[]):
            sides = [getattr(side, "id", getattr(side, "value", None)) for side in (left, right)]
            return sorted(map(str, sides)) == ["__main__", "__name__"]
        case ast.Expr(value=ast.Call(func=ast.Name(id="print"))):
            return True
    return False
