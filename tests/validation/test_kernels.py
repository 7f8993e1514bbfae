"""The C++ of several programs in one unit: each kernel computes its own, and a bad one fails alone."""

from __future__ import annotations

import pytest
import torch
from probing import compiler

from synth_core.validation.prover.cxx import build, unit
from synth_core.validation.prover.inductor import Kernel

HEAD = """
#include <torch/csrc/inductor/cpp_prefix.h>
extern "C"  void  kernel(const float* in_ptr0,
                       float* out_ptr0)
"""
TIMES = HEAD + "{ for (int64_t i = 0; i < 4; ++i) out_ptr0[i] = in_ptr0[i] * %d; }\n"
THROWS = HEAD + '{ if (in_ptr0[0] > 0) throw std::runtime_error("index out of bounds"); out_ptr0[0] = 5; }\n'
WRONG = HEAD + "{ out_ptr0[0] = no_such_name; }\n"
TWO_FUNCTIONS = (
    "static float twice(float x) { return x * 2; }\n" + HEAD + "{ out_ptr0[0] = twice(in_ptr0[0]); }\n"
)


def kernel(source: str) -> Kernel:
    return Kernel(["const float*", "float*"], source)


def result(built: Kernel, first: float = 1.0) -> list[float]:
    given, taken = torch.tensor([first, 2.0, 3.0, 4.0]), torch.zeros(4)
    built(given, taken)
    return [float(value) for value in taken]


def test_kernels_of_a_unit_have_names_of_their_own_and_report_what_they_throw() -> None:
    text = unit({TIMES % 2: "first", TIMES % 3: "second"})
    assert text.count('extern "C" void first(') == text.count('extern "C" void second(') == 1
    assert text.count("catch (...)") == 2
    assert "#include" not in text
    assert "kernel(" not in text


def test_every_program_gets_its_own_kernel() -> None:
    """Two programs may hold the very same kernel, and one program several."""
    programs = [[kernel(TIMES % 2)], [kernel(TIMES % 3), kernel(TIMES % 2)], [], [kernel(TWO_FUNCTIONS)]]
    assert build(compiler(), programs) == ["", "", "", ""]
    found = [[result(one) for one in kernels] for kernels in programs]
    twice, thrice = [2.0, 4.0, 6.0, 8.0], [3.0, 6.0, 9.0, 12.0]
    assert found == [[twice], [thrice, twice], [], [[2.0, 0.0, 0.0, 0.0]]]


def test_only_the_program_that_does_not_compile_fails() -> None:
    programs = [[kernel(TIMES % 2)], [kernel(WRONG)], [kernel(TIMES % 3)]]
    first, wrong, last = build(compiler(), programs)
    assert (first, last) == ("", "")
    assert "no_such_name" in wrong
    assert result(programs[0][0])[0] == 2.0
    assert result(programs[2][0])[0] == 3.0


def test_what_a_kernel_throws_is_an_exception_in_python() -> None:
    throws = kernel(THROWS)
    assert build(compiler(), [[throws]]) == [""]
    assert result(throws, first=-1.0)[0] == 5.0
    with pytest.raises(RuntimeError, match="index out of bounds"):
        result(throws)
