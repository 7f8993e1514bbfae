"""The downstream contract: what a builder of training rows, such as KernelBook's, can use.

Every rule has a name and either rejects or warns; `Verdict.contract` has one entry for each. By default a
rule rejects if that builder loses every program that breaks it. It warns if the builder may lose or misbind
such a program. Static rules are decided by the text, the others by the captured graph (prover/eager.py). If
the program failed before a rule could be decided, the rule is left out.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import groupby
from typing import Any

from synth_core.errors import UsageError
from synth_core.program.renaming import program_class
from synth_core.records import Node
from synth_core.validation import gate

# Names that the module that Inductor generates binds itself.
RESERVED = frozenset(
    {"call", "grid", "aten", "triton", "tl", "async_compile", "assert_size_stride", "reinterpret_tensor"}
)

# Attributes of functions and tracebacks that lead to the code and the names around them.
_INNER = frozenset({"__closure__", "__code__", "__globals__", "__traceback__"})


@dataclass(frozen=True)
class Source:
    """A parsed program. name: the name of its class and of its file."""

    tree: ast.Module
    name: str

    @property
    def program(self) -> ast.ClassDef | None:
        return program_class(self.tree)

    @property
    def forward(self) -> ast.FunctionDef | None:
        return gate.function(self.program.body, "forward") if self.program else None

    def nodes(self, *kinds: type[ast.AST]) -> list[Any]:
        return [node for node in ast.walk(self.tree) if isinstance(node, kinds)]

    def returns(self, function: ast.FunctionDef) -> list[ast.Return]:
        """The `return`s of the function itself, not those of functions inside it."""
        found: list[ast.Return] = []
        pending: list[ast.AST] = list(function.body)
        while pending:
            node = pending.pop()
            if isinstance(node, ast.Return):
                found.append(node)
            elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                pending.extend(ast.iter_child_nodes(node))
        return found


@dataclass(frozen=True)
class Run:
    """A captured run. nodes: those that the outputs depend on. literal_tuple: `forward` returns a written-out
    tuple."""

    literal_tuple: bool
    facts: Mapping[str, Any]
    effects: Mapping[str, Any]
    nodes: Sequence[Node]

    def used(self, kind: str) -> list[Node]:
        return [node for node in self.nodes if node.kind == kind]


@dataclass(frozen=True)
class Rule:
    """One rule. holds: takes a `Source` (static) or a `Run`."""

    name: str
    rejects: bool
    says: str
    holds: Callable[[Any], bool]


def _class_named_as_file(source: Source) -> bool:
    return source.program is not None and source.program.name == source.name and source.name.isidentifier()


def _bare_exec(source: Source) -> bool:
    names = {node.id for node in source.nodes(ast.Name)} | {node.attr for node in source.nodes(ast.Attribute)}
    return not names & {"__main__", "__file__", "__name__", "__spec__", "getsource"}


def _no_introspection(source: Source) -> bool:
    named = {node.attr for node in source.nodes(ast.Attribute)}
    return not named & (gate.INTROSPECTION | _INNER)


def _plain_forward(source: Source) -> bool:
    forward = source.forward
    if forward is None or forward.decorator_list or forward.args.vararg or forward.args.kwarg:
        return False
    return not any(isinstance(node, ast.Yield | ast.YieldFrom) for node in ast.walk(forward))


def _one_return(source: Source) -> bool:
    returns = source.returns(source.forward) if source.forward else []
    return len(returns) == 1 and not isinstance(returns[0].value, ast.List | ast.Dict | ast.Set | None)


def _no_lambda_returned(source: Source) -> bool:
    functions = (gate.function(source.tree.body, name) for name in ("get_inputs", "get_init_inputs"))
    returned = [value for function in functions if function for value in source.returns(function)]
    return not any(isinstance(node, ast.Lambda) for value in returned for node in ast.walk(value))


def _no_reserved_names(source: Source) -> bool:
    bound = {node.id for node in source.nodes(ast.Name) if isinstance(node.ctx, ast.Store)}
    bound |= {node.name for node in source.nodes(ast.FunctionDef, ast.ClassDef)}
    bound |= {node.arg for node in source.nodes(ast.arg)}
    bound |= {(n.asname or n.name).partition(".")[0] for n in source.nodes(ast.alias)}
    return not any(name in RESERVED or name.startswith("empty_strided_") for name in bound)


def _no_chained_assignment(source: Source) -> bool:
    return all(len(node.targets) == 1 for node in source.nodes(ast.Assign))


def _no_new_syntax(source: Source) -> bool:
    """No `match`, no `except*` and no PEP 695. Older Pythons lack even the names of their nodes."""
    new = ("Match", "TryStar", "TypeAlias", "TypeVar", "ParamSpec", "TypeVarTuple")
    return not any(type(node).__name__ in new for node in ast.walk(source.tree))


def _no_globals_in_forward(source: Source) -> bool:
    if source.forward is None:
        return True
    constants = {
        target.id
        for node in source.tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    own = {node.arg for node in ast.walk(source.forward) if isinstance(node, ast.arg)}
    read = {node.id for node in ast.walk(source.forward) if isinstance(node, ast.Name)}
    return not read & constants - own


def _tensors_returned(run: Run) -> bool:
    if run.facts["structure"] == "tensor":
        return True
    return run.facts["structure"] == "tuple" and run.literal_tuple


def _parameters_used(run: Run) -> bool:
    return {path for path, _ in run.facts["parameters"]} <= {node.name for node in run.used("parameter")}


def _inputs_used(run: Run) -> bool:
    return len(run.used("input")) == len(run.facts["inputs"])


def _no_numeric_paths(run: Run) -> bool:
    return not any(part.isdigit() for path, _ in run.facts["parameters"] for part in path.split("."))


def _input_shapes_apart(run: Run) -> bool:
    return not any(shape in run.facts["inputs"] for _, shape in run.facts["parameters"])


def _parameters_in_order(run: Run) -> bool:
    """Parameters of one shape are declared in the order in which they are first used."""
    used = {node.name: position for position, node in enumerate(run.used("parameter"))}
    declared = sorted(
        ((tuple(shape), index, path) for index, (path, shape) in enumerate(run.facts["parameters"]))
    )
    for _, group in groupby(declared, key=lambda item: item[0]):
        positions = [used[path] for _, _, path in group if path in used]
        if positions != sorted(positions):
            return False
    return True


STATIC_RULES: tuple[Rule, ...] = (
    Rule("class_named_as_file", True, "the class is called like the file", _class_named_as_file),
    Rule("bare_exec", True, "it runs by exec in a bare dict: no __main__, no getsource", _bare_exec),
    Rule("no_introspection", True, "it reads no frames, code objects or globals", _no_introspection),
    Rule("plain_forward", True, "forward is a plain def with named arguments", _plain_forward),
    Rule("one_return", True, "forward has exactly one return, of a value", _one_return),
    Rule("no_lambda_returned", True, "get_inputs, get_init_inputs return no lambda", _no_lambda_returned),
    Rule("no_reserved_names", True, "no name is one that generated code binds", _no_reserved_names),
    Rule("no_chained_assignment", True, "no a = b = c", _no_chained_assignment),
    Rule("no_new_syntax", True, "no match, except* or type parameters", _no_new_syntax),
    Rule("no_globals_in_forward", False, "forward reads no module-level constant", _no_globals_in_forward),
)
RUN_RULES: tuple[Rule, ...] = (
    Rule(
        "init_inputs_are_a_pair",
        True,
        "get_init_inputs returns [[args], {kwargs}]",
        lambda run: bool(run.facts["init_inputs_are_a_pair"]),
    ),
    Rule(
        "inputs_are_flat",
        True,
        "get_inputs returns a flat list of tensors",
        lambda run: bool(run.facts["inputs_are_flat"]),
    ),
    Rule(
        "tensors_returned", True, "forward returns a tensor or a literal tuple of tensors", _tensors_returned
    ),
    Rule("parameters_used", True, "every parameter reaches an output", _parameters_used),
    Rule("inputs_used", True, "every input reaches an output", _inputs_used),
    Rule(
        "no_side_effects",
        True,
        "forward writes to no attribute and no global",
        lambda run: not run.facts["side_effects"],
    ),
    Rule("no_input_returned", True, "no output is an input", lambda run: not run.facts["returned"]),
    Rule(
        "no_view_of_input",
        True,
        "no output shares memory with an input",
        lambda run: not run.facts["shares_memory"],
    ),
    Rule(
        "no_buffers",
        False,
        "no buffer and no tensor attribute in the graph",
        lambda run: not run.used("buffer") and not run.used("constant"),
    ),
    Rule("no_numeric_paths", False, "no parameter path such as layers.0.weight", _no_numeric_paths),
    Rule("input_shapes_apart", False, "no input has the shape of a parameter", _input_shapes_apart),
    Rule(
        "parameters_in_order",
        False,
        "parameters of one shape are declared in order of use",
        _parameters_in_order,
    ),
    Rule(
        "no_randomness",
        False,
        "forward draws no random numbers",
        lambda run: not run.effects["random"],
    ),
)
ONE_GRAPH = Rule("one_graph", True, "torch.compile captures one graph", lambda run: True)
"""The check `full_graph` decides it. It is reported here as well."""

RULES = (*STATIC_RULES, *RUN_RULES, ONE_GRAPH)
DEFAULT_REJECT_RULES = tuple(rule.name for rule in RULES if rule.rejects)


def check_contract(source: Source) -> dict[str, bool]:
    """Static rule -> holds."""
    return {rule.name: rule.holds(source) for rule in STATIC_RULES}


def check_run(
    literal_tuple: bool, facts: Mapping[str, Any], effects: Mapping[str, Any], nodes: Sequence[Node]
) -> dict[str, bool]:
    """Rule -> holds, of a captured run."""
    run = Run(literal_tuple, facts, effects, nodes)
    return {rule.name: rule.holds(run) for rule in RUN_RULES}


def resolve_rules(reject: Iterable[str] = (), warn: Iterable[str] = ()) -> frozenset[str]:
    """The rules that reject: the default ones and `reject`, without `warn`.

    Raises `UsageError` for an unknown name, for a name in both, and for `one_graph`, which a check decides.
    """
    rejecting, warning = frozenset(reject), frozenset(warn)
    known = [rule.name for rule in RULES if rule is not ONE_GRAPH]
    for name in sorted((rejecting | warning) - set(known)):
        if name == ONE_GRAPH.name:
            raise UsageError("the rule 'one_graph' is the check 'full_graph', which cannot be switched off")
        close = get_close_matches(name, known, n=1)
        hint = f", did you mean {close[0]!r}" if close else ""
        raise UsageError(f"unknown contract rule {name!r}{hint}; known: {', '.join(known)}")
    for name in sorted(rejecting & warning):
        raise UsageError(f"the rule {name!r} cannot both reject and only warn")
    return (frozenset(DEFAULT_REJECT_RULES) | rejecting) - warning
