"""Which C++ may share a compile unit: nothing may reach out of one function's body."""

from __future__ import annotations

import pytest

from synth_core.validation.supervisor.units import lone_source, shared_source, why_not_plain

HEAD = """
#include <torch/csrc/inductor/cpp_prefix.h>
extern "C"  void  kernel(const float* in_ptr0,
                       float* out_ptr0)
"""
PLAIN = (
    HEAD
    + """{
    #pragma omp simd reduction(+:tmp_acc0)
    for(int64_t x0=static_cast<int64_t>(0L); x0<static_cast<int64_t>(4L); x0+=static_cast<int64_t>(1L))
    {
        if(C10_LIKELY(x0 >= 0)) { AOTI_TORCH_CHECK(x0 < 4L, "index out of bounds: 0 <= } < 4L") }
        out_ptr0[in_index[x0]] = std::numeric_limits<float>::infinity();
    }
}
"""
)


def test_what_inductor_writes_is_plain() -> None:
    assert why_not_plain(PLAIN) == ""


@pytest.mark.parametrize(
    "body",
    [
        "{ } __attribute__((constructor)) void early() { }",
        "{ } static int early = system();",
        "{ } struct Early { Early() { } } early;",
        "{ } }{",
        '{ asm(".section .init_array"); }',
        "{ __asm__(); }",
        "{ [[gnu::constructor]] void f(); }",
        "{ [ [gnu::constructor]] void f(); }",
        "{ <:<:gnu::constructor:>:> void f(); }",
        "{ void f() __attribute__((constructor)); }",
        '{ _Pragma("GCC poison float") }',
        "{\n#define float double\n}",
        '{\n#include "/etc/passwd"\n}',
        "{\n#pragma GCC poison float\n}",
        "{\n#pragma redefine_extname a b\n}",
        "{\n#pragma omp declare reduction(x:int:omp_out)\n}",
        "{ // } hidden\n }",
        "{ /* } */ }",
        '{ auto a = R"x(})x"; }',
        "{ auto a = '\"'; }",
        '{ auto a = "\\"}"; }',
        "{ static thread_local int a = 1; }",
        '{ extern "C" void f(); }',
        "{ Py_BEGIN_ALLOW_THREADS }",
        "{ TORCH_LIBRARY(a, b) }",
        "{ int \\u0061; }",
        "{ int ä; }",
        "{ int a\x0c; }",
        "{ int a ??= 1; }",
        "{ template <class T> int a; }",
    ],
)
def test_what_reaches_out_of_its_body_is_not(body: str) -> None:
    assert why_not_plain(HEAD + body)


@pytest.mark.parametrize(
    "source",
    [
        "",
        "#define kernel other\n" + PLAIN,
        "int before = 1;\n" + PLAIN,
        PLAIN + "int after = 1;",
        PLAIN.replace("out_ptr0)", "out_ptr0 = [] { return nullptr; }())", 1),
        PLAIN.replace("void", "int", 1),
        PLAIN + PLAIN,
        '#include "evil.h"\n' + PLAIN,
    ],
)
def test_only_one_function_and_nothing_beside_it(source: str) -> None:
    assert why_not_plain(source)


def test_kernels_of_a_unit_get_names_of_their_own_and_report_what_they_throw() -> None:
    unit = shared_source([PLAIN, PLAIN], ["first", "second"])
    assert unit.count('extern "C" void first(') == unit.count('extern "C" void second(') == 1
    assert unit.count("catch (...)") == 2
    assert "#include" not in unit
    assert "kernel(" not in unit


def test_a_lone_kernel_may_hold_anything() -> None:
    assert "int before = 1;" in lone_source("int before = 1;\n" + PLAIN, "mine")
    assert "mine(" in lone_source("int before = 1;\n" + PLAIN, "mine")
