"""From a graph of torch calls to Inductor's generated code, by the short way.

`compile_fx` prepares for what cannot happen here: gradients, inputs that are written to or returned, sizes
that vary, code that is kept on disk. A graph that only computes needs less: one trace to ATen, then the
passes of Inductor, its lowering and its code generation. They are called here in Inductor's order. Other
graphs take the long way, `compile_fx`; `lowered` then returns None.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx
from torch._dispatch.python import enable_python_dispatcher
from torch._guards import TracingContext, tracing
from torch._inductor import compile_fx as inductor
from torch._inductor.debug import DebugContext
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.fx_passes.post_grad import view_to_reshape
from torch._inductor.graph import GraphLowering
from torch._inductor.virtualized import V
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from synth_core.validation.prover.functional import make_functional

Forward = Callable[..., Any]

_ACCEPTED = inspect.signature(GraphLowering).parameters
_DECOMPOSITIONS: dict[str, Any] = (
    {"get_decomp_fn": select_decomp_table} if "get_decomp_fn" in _ACCEPTED else {}  # torch 2.11 has none
)


def lowered(graph: fx.GraphModule, arguments: Sequence[torch.Tensor]) -> Forward | None:
    """The compiled graph, or None if it must take the long way. Raises what Inductor raises."""
    if any(tensor.is_cuda for tensor in arguments):
        return None
    mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv())
    with tracing(TracingContext(mode)), enable_python_dispatcher():
        inputs = [mode.from_tensor(tensor, static_shapes=True) for tensor in arguments]
        aten = traced(graph, inputs)
        if aten is None:
            return None
        return _generated(aten, inputs, mode)


def traced(graph: fx.GraphModule, inputs: Sequence[torch.Tensor]) -> fx.GraphModule | None:
    """The graph in operators of ATen; None if one of them still writes to a tensor."""
    graph = inductor._recursive_pre_grad_passes(graph, inputs)
    aten = make_fx(graph, decomposition_table=select_decomp_table())(*inputs)
    aten.graph.eliminate_dead_code()
    return aten if make_functional(aten) else None


def _generated(aten: fx.GraphModule, inputs: Sequence[torch.Tensor], mode: FakeTensorMode) -> Forward:
    aten = inductor._recursive_joint_graph_passes(aten, input_device=torch.device("cpu"))
    (output,) = aten.graph.find_nodes(op="output")
    output.meta["user_visible_output_idxs"] = list(range(len(output.args[0])))
    view_to_reshape(aten)  # type: ignore[no-untyped-call]
    inductor.fake_tensor_prop(aten, inputs)
    inductor._recursive_record_original_output_strides(aten)
    with V.set_fake_mode(mode), V.set_debug_handler(DebugContext()):
        inductor._recursive_post_grad_passes(aten, is_inference=True)
        lowering = GraphLowering(
            aten,
            example_inputs=inputs,
            shape_env=mode.shape_env,
            is_inference=True,
            inputs_to_check=(),
            **_DECOMPOSITIONS,
        )
        lowering.freeze_runtime_asserts()
        with V.set_graph_handler(lowering), V.set_extern_kernel_nodes([]):
            lowering.run(*inputs)
            module = lowering.compile_to_module()
    return lambda *values: module.call(list(values))
