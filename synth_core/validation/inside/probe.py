"""What runs inside the sandbox: build the program, run it, write down what happened. No verdicts here.

Everything the judge needs is recorded as it is: output bytes, names, shapes, shares, the first exception. An
exception of the program is evidence; one of ours leaves the evidence without its end mark, and incomplete
evidence passes nothing.

    request key   meaning
    source        text of the program
    name          its class
    seed          start of every random draw
    device        "cpu" or "cuda"; "cpu" where the key is missing
    brief         (run_eager) what the compile stage compares with, outputs and their fp64 reference, and
                  nothing else
    skip          names of checks that are switched off; what only they need is not run
    last          (run_eager) there is no more memory to be had by another try; if the key is false, a lack
                  of memory for the reference is the program's error, else it is done without
    most          elements of an output that are looked at (loading.Runner); all where the key is missing

Records of run_eager: `output.N`, `again.N` (same instance, same seed), `rebuilt.N` (all made anew from the
same seed); `facts`, `graph`, `effects`; or `error`. Of a brief one: `output.N`, `reference.N` (fp64) or
`reference_error`, `facts`, `graph`; or `error`. Of run_compiled: `compiled.N` or `error`.
"""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch

from synth_core.validation.evidence import EvidenceWriter
from synth_core.validation.inside import disturb
from synth_core.validation.inside.capture import Captured, Recorder, tensors_in
from synth_core.validation.inside.loading import (
    FILE,
    BrokenContract,
    Loaded,
    Request,
    Runner,
    copies,
    give_back_memory,
    is_pair,
    load,
    seed_everything,
    settle,
)
from synth_core.validation.tolerance import tolerance_for

MAX_MESSAGE = 2000


class Ended(Exception):
    """The program failed and the evidence says how."""


def run_eager(request: Request, out: EvidenceWriter) -> None:
    """Run the program in eager mode, again in several ways, and record what came of it."""
    with suppress(Ended):
        _run_eager(request, out)


def run_compiled(request: Request, out: EvidenceWriter) -> None:
    """Run the program through torch.compile with Inductor and record its outputs."""
    with suppress(Ended):
        _run_compiled(request, out)


def _run_eager(request: Request, out: EvidenceWriter) -> None:
    brief = bool(request.get("brief"))
    _quiet_torch(exact=brief)
    skip = frozenset(request.get("skip", ()))
    seed = int(request["seed"])
    runner = partial(Runner, seed=seed, most=request.get("most"))
    with phase("builds", out):
        program = load(request)
    with phase("runs", out):
        run = runner(program.module)
        result = run.raw(program.inputs)
        outputs = run.kept(result)
        if not outputs:
            raise BrokenContract(f"forward returns {type(result).__name__}, not tensors")
        _record("output", outputs, out)
        reseeded = runner(program.module, seed=seed + 1)(program.inputs)
    if brief:
        give_back_memory()
        fatal = () if request.get("last", True) else disturb.EXHAUSTED
        with phase("runs", out, fatal):
            _record_reference(program, runner, _repeats(outputs, reseeded), fatal, out)
        give_back_memory()
    captured = _capture(program, seed, result, out)
    if brief:
        return
    if "deterministic" not in skip:
        with phase("runs", out):
            _record("again", run(program.inputs), out)
        with phase("builds", out):
            anew = load(request)
        with phase("runs", out):
            _record("rebuilt", runner(anew.module)(anew.inputs), out)
    with phase("builds", out):
        others = program.draw_inputs(seed + 1)
    tolerances = [tolerance_for(t.dtype, (n.target for n in captured.nodes)) for t in outputs]
    compare = disturb.Comparison(run, program.inputs, outputs, tolerances, seed + 1)
    effects: dict[str, Any] = {"random": not disturb.same(outputs, reseeded)}
    with phase("runs", out, disturb.EXHAUSTED):
        if "inputs_matter" not in skip:
            effects["inputs"] = [compare.input(i, other) for i, other in enumerate(others)]
        if "weights_matter" not in skip:
            effects["weights"] = compare.weights(program.module)
        if "operators_matter" not in skip:
            effects["units"] = _effects_of_units(program, captured, compare, runner)
    with phase("runs", out):
        settle()
    out.json("effects", effects)


def _repeats(outputs: disturb.Outputs, reseeded: disturb.Outputs) -> bool:
    """Whether another seed gives the same: nearly the same, as some of cuDNN's algorithms never repeat."""
    tolerances = [tolerance_for(tensor.dtype) for tensor in outputs]
    return disturb.moved(outputs, reseeded, tolerances) == 0.0


def _effects_of_units(
    program: Loaded, captured: Captured, compare: disturb.Comparison, runner: Callable[..., Runner]
) -> list[tuple[str, str, float, float]]:
    """Operator, how it was meddled with, the share that moved here, and elsewhere where none did here."""
    still = max(tolerance.outliers for tolerance in compare.tolerances)
    here = [compare.unit(unit) for _, unit in captured.units]
    there = [share for share, _ in here]
    for vary, reach in ((False, 1.0), (True, 4.0)):
        if min(there, default=1.0) > still:
            break
        with disturb.unless_exhausted():  # a program may not bear other arguments, or other inputs
            module = program.variant() if vary else program.module
            with compare.elsewhere(module, runner(module), reach) as other:
                there = [
                    share if share > still else other.unit(unit)[0]
                    for share, (_, unit) in zip(there, captured.units, strict=True)
                ]
    return [
        (name, how, share, elsewhere)
        for (name, _), (share, how), elsewhere in zip(captured.units, here, there, strict=True)
    ]


def _capture(program: Loaded, seed: int, result: Any, out: EvidenceWriter) -> Captured:
    """Run once more under the recorder; write the graph and the facts that rules of the contract ask for."""
    inputs = copies(program.inputs)
    recorder = Recorder(program.module, inputs)
    with phase("runs", out), torch.no_grad():
        seed_everything(seed)
        with recorder:
            recorded = list(tensors_in(program.module(*inputs)))
        captured = recorder.finish(recorded)
    out.json("facts", _facts(program, result, recorded, inputs))
    out.json("graph", [node.model_dump(exclude_defaults=True) for node in captured.nodes])
    return captured


def _run_compiled(request: Request, out: EvidenceWriter) -> None:
    _quiet_torch(exact=True)
    with phase("builds", out):
        program = load(request)
    with phase("compiles", out):
        torch._dynamo.reset()
        compiled = torch.compile(
            program.module, fullgraph="full_graph" not in request.get("skip", ()), dynamic=False
        )
        # With Inductor's own generator a program that draws numbers could never agree with eager.
        with torch._inductor.config.patch(fallback_random=True):
            run = Runner(compiled, int(request["seed"]), request.get("most"))
            outputs = run(program.inputs)
        _record("compiled", outputs, out)


def _quiet_torch(exact: bool) -> None:
    """Transformer layers have a fast path in eager, with other kernels than Inductor sees, that trips over
    transposed inputs. On a GPU, TF32 would blur what is compared with other code or another precision;
    compared with itself (not `exact`) a program may have it, but then none of cuDNN's algorithms that add up
    in an order of their own each time. In fp32 those that do not take up to 300 times as long (measured,
    transposed 3d convolutions)."""
    torch.backends.mha.set_fastpath_enabled(False)
    torch.backends.cuda.matmul.allow_tf32 = not exact
    torch.backends.cudnn.allow_tf32 = not exact
    torch.backends.cudnn.deterministic = not exact


@contextmanager
def phase(
    name: str, out: EvidenceWriter, kinds: tuple[type[BaseException], ...] = (BaseException,)
) -> Iterator[None]:
    """What the program raises in here ends the run, as evidence."""
    try:
        yield
    except kinds as error:
        out.json("error", {"phase": name, **describe(error)})
        raise Ended from error


def describe(error: BaseException) -> dict[str, Any]:
    """An exception as data: its classes, its text, and the innermost line of the program it passed."""
    kinds = [kind.__name__ for kind in type(error).__mro__[:-1]]
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == FILE]
    where = f"line {frames[-1].lineno}: {(frames[-1].line or '').strip()}" if frames else ""
    return {"kinds": kinds, "message": str(error)[:MAX_MESSAGE], "where": where}


def _record(name: str, tensors: disturb.Outputs, out: EvidenceWriter) -> None:
    for position, tensor in enumerate(tensors):
        out.tensor(f"{name}.{position}", tensor)


def _record_reference(
    program: Loaded,
    runner: Callable[..., Runner],
    repeats: bool,
    fatal: tuple[type[BaseException], ...],
    out: EvidenceWriter,
) -> None:
    """The same program in double precision; where it insists on another precision there is none.

    repeats: whether the outputs stay the same under another seed. A program that draws random numbers would
        draw others in double precision.
    fatal: what is raised, and not recorded as the reason that there is no reference.
    """
    try:
        if not repeats:
            raise BrokenContract("forward draws random numbers")
        module = copy.deepcopy(program.module).double()
        for part in module.modules():
            for name, value in vars(part).items():
                if isinstance(value, torch.Tensor) and value.is_floating_point():
                    setattr(part, name, value.double())
        inputs = [
            t.double() if isinstance(t, torch.Tensor) and t.is_floating_point() else t for t in program.inputs
        ]
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            _record("reference", runner(module)(inputs), out)
        finally:
            torch.set_default_dtype(before)
    except Exception as error:
        if isinstance(error, fatal):
            raise
        out.json("reference_error", describe(error))


def _facts(program: Loaded, result: Any, recorded: disturb.Outputs, inputs: list[Any]) -> dict[str, Any]:
    """What the rules of the contract ask of a run (contract.py)."""
    tensors = [t for t in inputs if isinstance(t, torch.Tensor)]
    addresses = {t.untyped_storage().data_ptr() for t in tensors if t.numel()}
    state = [*program.module.parameters(), *program.module.buffers()]
    return {
        "structure": _structure(result),
        "init_inputs_are_a_pair": is_pair(program.init_inputs),
        "inputs_are_flat": isinstance(program.declared_inputs, list | tuple) and len(tensors) == len(inputs),
        "inputs": [list(t.shape) if isinstance(t, torch.Tensor) else None for t in inputs],
        "parameters": [[f"self.{path}", list(p.shape)] for path, p in program.module.named_parameters()],
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
