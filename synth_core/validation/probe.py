"""What runs inside the sandbox: build the program, run it, write down what happened. No verdicts here.

Everything the judge needs is recorded as it is: output bytes, names, shapes, shares, the first exception. An
exception of the program is evidence; one of ours leaves the evidence without its end mark, and incomplete
evidence passes nothing.

    request key   meaning
    source        text of the program
    name          its class
    seed          start of every random draw
    device        "cpu" or "cuda"; "cpu" where the key is missing
    brief         (run_eager) only what the compile stage compares with: outputs and their fp64 reference
    skip          names of checks that are switched off; what only they need is not run

Records of run_eager: `output.N`, `again.N` (same instance, same seed), `rebuilt.N` (all made anew from the
same seed), `reference.N` (fp64) or `reference_error`; `facts`, `graph`, `effects`; or `error`. Of
run_compiled: `compiled.N` or `error`.
"""

from __future__ import annotations

import copy
import linecache
import random
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from types import CodeType
from typing import Any

import torch
from torch import nn

from synth_core.validation import disturb
from synth_core.validation.capture import Captured, Recorder, tensors_in
from synth_core.validation.evidence import EvidenceWriter
from synth_core.validation.tolerance import tolerance_for

Request = dict[str, Any]

FILE = "<program>"
MAX_MESSAGE = 2000


class Ended(Exception):
    """The program failed and the evidence says how."""


class BrokenContract(Exception):
    """The program lacks what every program must have; the judge knows this name."""


@dataclass(frozen=True)
class Built:
    """A program in memory, with the random state behind it.

    inputs: pristine; every run gets copies, since a program may write to its inputs.
    """

    module: nn.Module
    inputs: list[Any]
    init_inputs: Any
    declared_inputs: Any
    draw_inputs: Callable[[int], list[Any]]


def run_eager(request: Request, out: EvidenceWriter) -> None:
    """Run the program in eager mode, again in several ways, and record what came of it."""
    with suppress(Ended):
        _run_eager(request, out)


def run_compiled(request: Request, out: EvidenceWriter) -> None:
    """Run the program through torch.compile with Inductor and record its outputs."""
    with suppress(Ended):
        _run_compiled(request, out)


def _run_eager(request: Request, out: EvidenceWriter) -> None:
    _quiet_torch()
    skip = frozenset(request.get("skip", ()))
    seed = int(request["seed"])
    with _phase("builds", out):
        built = _build(request)
    with _phase("runs", out):
        run = Runner(built.module, seed)
        result = run.raw(built.inputs)
        outputs = [tensor.clone() for tensor in tensors_in(result)]
        if not outputs:
            raise BrokenContract(f"forward returns {type(result).__name__}, not tensors")
        _record("output", outputs, out)
        reseeded = Runner(built.module, seed + 1)(built.inputs)
    _record_reference(built, seed, disturb.same(outputs, reseeded), out)
    captured = _capture(built, seed, result, out)
    if request.get("brief"):
        return
    if "deterministic" not in skip:
        with _phase("runs", out):
            _record("again", run(built.inputs), out)
        with _phase("builds", out):
            anew = _build(request)
        with _phase("runs", out):
            _record("rebuilt", Runner(anew.module, seed)(anew.inputs), out)
    with _phase("builds", out):
        others = built.draw_inputs(seed + 1)
    tolerances = [tolerance_for(t.dtype, (n.target for n in captured.nodes)) for t in outputs]
    compare = disturb.Comparison(run, built.inputs, outputs, tolerances, seed + 1)
    effects: dict[str, Any] = {"random": not disturb.same(outputs, reseeded)}
    if "inputs_matter" not in skip:
        effects["inputs"] = [compare.input(i, other) for i, other in enumerate(others)]
    if "weights_matter" not in skip:
        effects["weights"] = compare.weights(built.module)
    if "operators_matter" not in skip:
        effects["units"] = [[name, *compare.unit(unit)] for name, unit in captured.units]
    out.json("effects", effects)


def _capture(built: Built, seed: int, result: Any, out: EvidenceWriter) -> Captured:
    """Run once more under the recorder; write the graph and the facts that rules of the contract ask for."""
    inputs = _copies(built.inputs)
    recorder = Recorder(built.module, inputs)
    with _phase("runs", out), torch.no_grad():
        seed_everything(seed)
        with recorder:
            recorded = list(tensors_in(built.module(*inputs)))
        captured = recorder.finish(recorded)
    out.json("facts", _facts(built, result, recorded, inputs))
    out.json("graph", [node.model_dump(exclude_defaults=True) for node in captured.nodes])
    return captured


def _run_compiled(request: Request, out: EvidenceWriter) -> None:
    _quiet_torch()
    with _phase("builds", out):
        built = _build(request)
    with _phase("compiles", out):
        torch._dynamo.reset()
        compiled = torch.compile(
            built.module, fullgraph="full_graph" not in request.get("skip", ()), dynamic=False
        )
        # With Inductor's own generator a program that draws numbers could never agree with eager.
        with torch._inductor.config.patch(fallback_random=True):
            outputs = Runner(compiled, int(request["seed"]))(built.inputs)
        _record("compiled", outputs, out)


class Runner:
    """Runs a module on copies of the inputs, in no_grad, from one random state."""

    def __init__(self, forward: Callable[..., Any], seed: int) -> None:
        self._forward = forward
        self._seed = seed

    def raw(self, inputs: Sequence[Any], within: AbstractContextManager[Any] | None = None) -> Any:
        copies = _copies(inputs)
        seed_everything(self._seed)
        with torch.no_grad(), within or nullcontext():
            return self._forward(*copies)

    def __call__(
        self, inputs: Sequence[Any], within: AbstractContextManager[Any] | None = None
    ) -> disturb.Outputs:
        """Every tensor in the result, copied: a program may hand out a buffer that it writes to again."""
        return [tensor.clone() for tensor in tensors_in(self.raw(inputs, within))]


def seed_everything(seed: int) -> None:
    """Torch, and the generators of Python and numpy, which a program may draw from as well."""
    torch.manual_seed(seed)
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)


def _quiet_torch() -> None:
    """Transformer layers have a fast path in eager, with other kernels than Inductor sees, that trips over
    transposed inputs; TF32 would blur every comparison on a GPU."""
    torch.backends.mha.set_fastpath_enabled(False)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


@contextmanager
def _phase(name: str, out: EvidenceWriter) -> Iterator[None]:
    """What the program raises in here ends the run, as evidence."""
    try:
        yield
    except BaseException as error:
        out.json("error", {"phase": name, **describe(error)})
        raise Ended from error


def describe(error: BaseException) -> dict[str, Any]:
    """An exception as data: its classes, its text, and the innermost line of the program it passed."""
    kinds = [kind.__name__ for kind in type(error).__mro__[:-1]]
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == FILE]
    where = f"line {frames[-1].lineno}: {(frames[-1].line or '').strip()}" if frames else ""
    return {"kinds": kinds, "message": str(error)[:MAX_MESSAGE], "where": where}


def _build(request: Request) -> Built:
    source, seed = str(request["source"]), int(request["seed"])
    device = torch.device(request.get("device", "cpu"))
    linecache.cache[FILE] = (len(source), None, source.splitlines(keepends=True), FILE)
    seed_everything(seed)
    namespace: dict[str, Any] = {"__name__": str(request["name"])}
    exec(_compiled(source), namespace)
    kind = _program_class(namespace)
    for function in ("get_inputs", "get_init_inputs"):
        if not callable(namespace.get(function)):
            raise BrokenContract(f"no function {function}() at module level")
    seed_everything(seed)
    init_inputs = namespace["get_init_inputs"]()
    args, kwargs = _as_call(init_inputs)
    module = kind(*args, **kwargs).eval().to(device)

    def draw(seed: int) -> tuple[Any, list[Any]]:
        seed_everything(seed)
        declared = namespace["get_inputs"]()
        flat = [declared] if isinstance(declared, torch.Tensor) else list(declared)
        return declared, [t.to(device) if isinstance(t, torch.Tensor) else t for t in flat]

    declared, inputs = draw(seed)
    return Built(module, inputs, init_inputs, declared, lambda seed: draw(seed)[1])


def _compiled(source: str) -> CodeType:
    try:
        return compile(source, FILE, "exec")
    except (ValueError, RecursionError, MemoryError) as error:  # NUL bytes, surrogates, nesting
        raise SyntaxError(str(error) or "nested too deeply to compile") from error


def _program_class(namespace: dict[str, Any]) -> type[nn.Module]:
    classes = [
        value
        for value in namespace.values()
        if isinstance(value, type)
        and issubclass(value, nn.Module)
        and value.__module__ == namespace["__name__"]
    ]
    if len(classes) != 1:
        raise BrokenContract(f"{len(classes)} nn.Module classes at module level; write exactly one")
    return classes[0]


def is_pair(init_inputs: Any) -> bool:
    """Whether it is `[[args], {kwargs}]`, as the downstream contract wants it."""
    return (
        isinstance(init_inputs, list | tuple)
        and len(init_inputs) == 2
        and isinstance(init_inputs[0], list | tuple)
        and isinstance(init_inputs[1], dict)
    )


def _as_call(init_inputs: Any) -> tuple[list[Any], dict[str, Any]]:
    """Arguments of the class; a plain list, as other collections have it, means positional ones."""
    if is_pair(init_inputs):
        return list(init_inputs[0]), dict(init_inputs[1])
    if isinstance(init_inputs, list | tuple):
        return list(init_inputs), {}
    raise BrokenContract(f"get_init_inputs returns {type(init_inputs).__name__}, not [[args], {{kwargs}}]")


def _copies(inputs: Sequence[Any]) -> list[Any]:
    return [item.clone() if isinstance(item, torch.Tensor) else copy.deepcopy(item) for item in inputs]


def _record(name: str, tensors: disturb.Outputs, out: EvidenceWriter) -> None:
    for position, tensor in enumerate(tensors):
        out.tensor(f"{name}.{position}", tensor)


def _record_reference(built: Built, seed: int, repeats: bool, out: EvidenceWriter) -> None:
    """The same program in double precision; where it insists on another precision there is none.

    repeats: whether the outputs stay the same under another seed. A program that draws random numbers would
        draw others in double precision.
    """
    try:
        if not repeats:
            raise BrokenContract("forward draws random numbers")
        module = copy.deepcopy(built.module).double()
        for part in module.modules():
            for name, value in vars(part).items():
                if isinstance(value, torch.Tensor) and value.is_floating_point():
                    setattr(part, name, value.double())
        inputs = [
            t.double() if isinstance(t, torch.Tensor) and t.is_floating_point() else t for t in built.inputs
        ]
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            _record("reference", Runner(module, seed)(inputs), out)
        finally:
            torch.set_default_dtype(before)
    except Exception as error:
        out.json("reference_error", describe(error))


def _facts(built: Built, result: Any, recorded: disturb.Outputs, inputs: list[Any]) -> dict[str, Any]:
    """What the rules of the contract ask of a run (contract.py)."""
    tensors = [t for t in inputs if isinstance(t, torch.Tensor)]
    addresses = {t.untyped_storage().data_ptr() for t in tensors if t.numel()}
    state = [*built.module.parameters(), *built.module.buffers()]
    return {
        "structure": _structure(result),
        "init_inputs_are_a_pair": is_pair(built.init_inputs),
        "inputs_are_flat": isinstance(built.declared_inputs, list | tuple) and len(tensors) == len(inputs),
        "inputs": [list(t.shape) if isinstance(t, torch.Tensor) else None for t in inputs],
        "parameters": [[f"self.{path}", list(p.shape)] for path, p in built.module.named_parameters()],
        "returned": any(output is t for output in recorded for t in tensors),
        "shares_memory": any(o.untyped_storage().data_ptr() in addresses for o in recorded),
        "finite_inputs": all(bool(t.isfinite().all()) for t in tensors),
        "finite_weights": all(bool(t.isfinite().all()) for t in state),
    }


def _structure(result: Any) -> str:
    if isinstance(result, torch.Tensor):
        return "tensor"
    flat = isinstance(result, tuple) and all(isinstance(item, torch.Tensor) for item in result)
    return "tuple" if flat else type(result).__name__
