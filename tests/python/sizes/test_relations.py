"""Sizes of inputs that have to fit together: wrong ones are an error in every format, never a result."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from models_small import unsupported

import kiln
import torch_tensorrt
from torch_tensorrt._sizes import SizeProgram
from torch_tensorrt.dynamo._contract import Condition, guard_conditions, message, script_text
from torch_tensorrt.formats import aoti

FORMATS = {"ep": "exported_program", "ts": "torchscript", "pt2": "aot_inductor"}
DYNAMIC = torch.export.Dim.DYNAMIC
B = torch.export.Dim("b", min=1, max=9)


class Joined(torch.nn.Module):
    """A sum of two sizes is half of a third one."""

    def forward(self, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return torch.cat((x, y), 1) + z[:, ::2]


class ShapeOfAnother(torch.nn.Module):
    """Products of sizes are equal."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (x.reshape(y.shape[0], y.shape[1]) + y) * 2


class Fixed(torch.nn.Module):
    """A product of sizes is a number."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(4, 4) * 2


class Even(torch.nn.Module):
    """A choice that was made when the model was exported."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.shape[0] % 2 == 0 else x * 3


class NeverMeet(torch.nn.Module):
    """Equal only because whoever exported it said so."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return unsupported(x), torch.sin(y)


class Twice(torch.nn.Module):
    """2 * b beside b."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.sin(x.reshape(2, -1)) + y


class Hidden(torch.nn.Module):
    """2 * b alone, and twice."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.sin(x).sum() + torch.cos(y)


class Asserted(torch.nn.Module):
    """What its author says of sizes."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        torch._check(x.shape[0] % 3 == 0)
        torch._check(x.shape[1] + 2 <= y.shape[0])
        return x.sin(), torch.sort(y).values


class Nested(torch.nn.Module):
    """The same with structures around the tensors."""

    def forward(self, pair: list[torch.Tensor], named: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.cat(pair, 1) + named["z"][:, ::2]


ASSERTED_FIT = [(9, 4), (7,)], [(6, 4), (6,)]
ASSERTED_WRONG = [(7, 4), (9,)], [(6, 4), (5,)]


def nested(x: Any, y: Any, z: Any) -> tuple[Any, ...]:
    return [x, y], {"z": z}


# module, shapes at the export, dynamic shapes, shapes that fit, shapes that do not
CASES: dict[str, tuple[Any, ...]] = {
    "sum and half": (
        Joined(),
        [(2, 3), (2, 4), (2, 14)],
        [{0: DYNAMIC, 1: DYNAMIC}] * 3,
        [[(2, 3), (2, 4), (2, 13)], [(3, 5), (3, 4), (3, 18)]],
        [[(2, 3), (2, 4), (2, 4)], [(2, 3), (3, 4), (2, 14)], [(2, 3), (2, 4), (2, 15)]],
    ),
    "product": (
        ShapeOfAnother(),
        [(4, 6), (8, 3)],
        [{0: DYNAMIC, 1: DYNAMIC}] * 2,
        [[(4, 9), (12, 3)]],
        [[(4, 6), (8, 4)], [(4, 4), (8, 3)], [(4, 5), (8, 3)]],
    ),
    "number": (Fixed(), [(2, 8)], [{0: DYNAMIC, 1: DYNAMIC}], [], [[(4, 5)], [(2, 9)], [(2, 7)]]),
    "remainder": (Even(), [(4, 8)], [{0: DYNAMIC}], [[(6, 8)]], [[(5, 8)], [(7, 8)]]),
    "equal": (
        NeverMeet(),
        [(4, 8), (4, 3)],
        [{0: B}, {0: B}],
        [[(6, 8), (6, 3)], [(1, 8), (1, 3)], [(9, 8), (9, 3)]],
        [[(5, 8), (4, 3)], [(4, 8), (5, 3)], [(10, 8), (10, 3)]],
    ),
    "twice": (
        Twice(),
        [(8,), (2, 4)],
        [{0: 2 * B}, {1: B}],
        [[(6,), (2, 3)], [(4,), (2, 2)], [(18,), (2, 9)]],
        [[(7,), (2, 3)], [(6,), (2, 4)], [(20,), (2, 10)]],
    ),
    "hidden": (
        Hidden(),
        [(8,), (9, 3)],
        [{0: 2 * B}, {0: 2 * B + 1}],
        [[(6,), (7, 3)], [(2,), (3, 3)], [(18,), (19, 3)]],
        [[(7,), (8, 3)], [(6,), (6, 3)], [(6,), (9, 3)], [(20,), (21, 3)]],
    ),
}


def tensors(shapes: Any) -> tuple[torch.Tensor, ...]:
    return tuple(torch.randn(shape) for shape in shapes)


def compile_case(module: Any, args: Any, dynamic: Any) -> Any:
    program = torch.export.export(module, args, dynamic_shapes=dynamic, strict=False)
    return torch_tensorrt.dynamo.compile(
        program, min_block_size=1, torch_executed_ops={"torch.ops.aten.sort.default"}
    )


def calls_of(compiled: Any, tmp_path: Any, how: str) -> list[Any]:
    """The ways to call a compiled module, or a file of it."""
    if how == "module":
        return [compiled]
    path = tmp_path / f"m.{how}"
    torch_tensorrt.save(compiled, path, output_format=FORMATS[how])
    calls = [torch_tensorrt.load(path)]
    if how == "ep":
        calls += [calls[0].module(), torch.export.load(path).module()]
    if how == "pt2":
        calls += [torch._inductor.aoti_load_package(str(path))]
    return calls


def run_engine(session: kiln.Session, args: tuple[torch.Tensor, ...]) -> Any:
    results = [torch.from_numpy(result) for result in session.run(*[arg.numpy() for arg in args])]
    return results[0] if len(results) == 1 else tuple(results)


def engine_calls(program: Any, tmp_path: Any) -> list[Any]:
    """A bare engine without PyTorch: of the front end, and of `kiln compile`."""
    path = tmp_path / "exported.pt2"
    torch.export.save(program, path)
    convert = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine
    (tmp_path / "engine.kiln").write_bytes(convert(program))
    engines = [kiln.load(tmp_path / "engine.kiln"), kiln.load(kiln.compile(path))]
    sessions = [engine.session() for engine in engines]
    return [lambda *args, session=session: run_engine(session, args) for session in sessions]


@pytest.mark.parametrize("name", ["sum and half", "product", "number", "equal"])
def test_what_only_a_guard_makes_fit_is_in_no_engine(name) -> None:
    """Sizes inside have to be proven to fit; and no engine has Bessel functions."""
    module, shapes, dynamic, _, _ = CASES[name]
    program = torch.export.export(
        module, tensors(shapes), dynamic_shapes=tuple(dynamic), strict=False
    )
    with pytest.raises(RuntimeError, match="cannot be in an engine"):
        torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(program)


@pytest.mark.parametrize("name", ["remainder", "twice", "hidden"])
def test_sizes_that_do_not_fit_are_an_error_of_a_bare_engine(name, tmp_path, assert_same) -> None:
    module, shapes, dynamic, fitting, others = CASES[name]
    program = torch.export.export(
        module, tensors(shapes), dynamic_shapes=tuple(dynamic), strict=False
    )
    # `kiln compile` keeps the tracer's lower bounds where nobody asks for less.
    usual = [each for each in fitting if min(min(shape) for shape in each) > 2]
    for call, fit in zip(engine_calls(program, tmp_path), (fitting, usual), strict=True):
        for given in (shapes, *fit):
            args = tensors(given)
            assert_same(call(*args), module(*args))
        for given in (*others, *others):
            with pytest.raises(kiln.KilnError, match="expected"):
                call(*tensors(given))
            args = tensors(shapes)
            assert_same(call(*args), module(*args))


class Said(torch.nn.Module):
    """What its author says of sizes, for an engine alone."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        torch._check(x.shape[0] % 3 == 0)
        torch._check(x.shape[1] + 2 <= y.shape[0])
        return x.sin(), y.cos()


@pytest.mark.parametrize("deferred", [True, False], ids=["assertions", "guards"])
def test_what_the_author_says_is_part_of_a_bare_engine(deferred, tmp_path, assert_same) -> None:
    program = torch.export.export(
        Said(),
        tensors([(6, 4), (9,)]),
        dynamic_shapes=({0: DYNAMIC, 1: DYNAMIC}, {0: DYNAMIC}),
        prefer_deferred_runtime_asserts_over_guards=deferred,
    )
    for call in engine_calls(program, tmp_path):
        for given in ASSERTED_FIT:
            args = tensors(given)
            assert_same(call(*args), Said()(*args))
        for given in ASSERTED_WRONG:
            with pytest.raises(kiln.OutOfRangeError, match="expected"):
                call(*tensors(given))


class Apart(torch.nn.Module):
    """Sizes that fit together, of tensors that do not meet."""

    def forward(self, x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> Any:
        torch._check(x.shape[1] + y.shape[1] == (z.shape[1] + 1) // 2)
        return x.sin(), y.cos(), z.exp()


class NestedApart(torch.nn.Module):
    """The same with structures around the tensors."""

    def forward(self, pair: list[torch.Tensor], named: dict[str, torch.Tensor]) -> Any:
        return Apart()(*pair, named["z"])


def test_a_bare_engine_names_the_sizes(tmp_path) -> None:
    _, shapes, dynamic, _, others = CASES["sum and half"]
    program = torch.export.export(Apart(), tensors(shapes), dynamic_shapes=tuple(dynamic))
    call = engine_calls(program, tmp_path)[0]
    with pytest.raises(kiln.OutOfRangeError) as error:
        call(*tensors(others[0]))
    assert str(error.value) == (
        "the sizes of the inputs do not fit together: got x.size(1) = 3, y.size(1) = 4, z.size(1) = 4, "
        "expected x.size(1) + y.size(1) == (1 + z.size(1)) // 2"
    )
    (described,) = [
        each
        for each in kiln.inspect(tmp_path / "engine.kiln")["requirements"]
        if "// 2" in each["expected"] and "==" in each["expected"]
    ]
    assert described == {
        "operation": "",
        "expected": "x.size(1) + y.size(1) == (1 + z.size(1)) // 2",
    }


def test_a_bare_engine_follows_structures(tmp_path, assert_same) -> None:
    dims = {0: DYNAMIC, 1: DYNAMIC}
    args = nested(*tensors([(2, 3), (2, 4), (2, 14)]))
    program = torch.export.export(
        NestedApart(), args, dynamic_shapes=([dims, dims], {"z": dims}), strict=False
    )
    fitting, wrong = tensors([(3, 5), (3, 4), (3, 18)]), tensors([(2, 3), (2, 4), (2, 4)])
    for call in engine_calls(program, tmp_path):
        assert_same(call(*fitting), NestedApart()(*nested(*fitting)))
        with pytest.raises(kiln.OutOfRangeError, match=r"expected .*z\.size\(1\)"):
            call(*wrong)


def check_case(name: str, tmp_path: Any, how: str, assert_same: Any) -> None:
    module, shapes, dynamic, fitting, others = CASES[name]
    compiled = compile_case(module, tensors(shapes), tuple(dynamic))
    for call in calls_of(compiled, tmp_path, how):
        for given in (shapes, *fitting):
            args = tensors(given)
            assert_same(call(*args), module(*args))
        for given in others:
            with pytest.raises(
                (RuntimeError, AssertionError, torch.jit.Error), match="expected|Guard"
            ):
                call(*tensors(given))


@pytest.mark.parametrize("how", ["module", "ep", "ts", "pt2"])
@pytest.mark.parametrize("name", CASES)
def test_sizes_that_do_not_fit_are_an_error(name, how, tmp_path, assert_same, monkeypatch) -> None:
    monkeypatch.setattr(aoti.package, "has_compiler", lambda configs: False)
    check_case(name, tmp_path, how, assert_same)


@pytest.mark.skipif(not aoti.package.has_compiler({}), reason="there is no C++ compiler")
@pytest.mark.parametrize("name", ["sum and half", "hidden"])
def test_compiled_code_is_guarded(name, tmp_path, assert_same) -> None:
    check_case(name, tmp_path, "pt2", assert_same)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("deferred", [True, False], ids=["assertions", "guards"])
@pytest.mark.parametrize("how", ["module", "ep", "ts", "pt2"])
def test_what_the_author_says(how, deferred, strict, tmp_path, assert_same, monkeypatch) -> None:
    """torch.export has it as a guard, or as an assertion in the graph."""
    monkeypatch.setattr(aoti.package, "has_compiler", lambda configs: False)
    program = torch.export.export(
        Asserted(),
        tensors([(6, 4), (9,)]),
        dynamic_shapes=({0: DYNAMIC, 1: DYNAMIC}, {0: DYNAMIC}),
        strict=strict,
        prefer_deferred_runtime_asserts_over_guards=deferred,
    )
    compiled = torch_tensorrt.dynamo.compile(
        program, min_block_size=1, torch_executed_ops={"torch.ops.aten.sort.default"}
    )
    for call in calls_of(compiled, tmp_path, how):
        for given in ASSERTED_FIT:
            args = tensors(given)
            assert_same(call(*args), Asserted()(*args))
        for given in ASSERTED_WRONG:
            with pytest.raises(
                (RuntimeError, AssertionError, torch.jit.Error), match="expected|Guard"
            ):
                call(*tensors(given))


@pytest.mark.parametrize("how", ["module", "ep", "ts", "pt2"])
def test_in_structures(how, tmp_path, assert_same, monkeypatch) -> None:
    monkeypatch.setattr(aoti.package, "has_compiler", lambda configs: False)
    dims = {0: DYNAMIC, 1: DYNAMIC}
    args = nested(*tensors([(2, 3), (2, 4), (2, 14)]))
    compiled = compile_case(Nested(), args, ([dims, dims], {"z": dims}))
    for call in calls_of(compiled, tmp_path, how):
        fitting = nested(*tensors([(3, 5), (3, 4), (3, 18)]))
        assert_same(call(*fitting), Nested()(*fitting))
        with pytest.raises((RuntimeError, AssertionError, torch.jit.Error), match="expected|Guard"):
            call(*nested(*tensors([(2, 3), (2, 4), (2, 4)])))


@pytest.mark.parametrize("retrace", [True, False])
def test_saving_again_keeps_the_relations(tmp_path, retrace) -> None:
    module, shapes, dynamic, _, others = CASES["sum and half"]
    compiled = compile_case(module, tensors(shapes), tuple(dynamic))
    for name in ("a.ep", "b.ep"):
        inputs = list(tensors(shapes)) if retrace else None
        torch_tensorrt.save(compiled, tmp_path / name, arg_inputs=inputs, retrace=retrace)
        compiled = torch_tensorrt.load(tmp_path / name)
        for given in others:
            with pytest.raises((RuntimeError, AssertionError), match="expected|Guard"):
                compiled(*tensors(given))


@pytest.mark.parametrize("how", ["ep", "ts"])
def test_saving_the_module_of_what_was_loaded(tmp_path, how) -> None:
    module, shapes, dynamic, _, others = CASES["sum and half"]
    compiled = compile_case(module, tensors(shapes), tuple(dynamic))
    torch_tensorrt.save(compiled, tmp_path / "first.ep")
    again = torch_tensorrt.load(tmp_path / "first.ep").module()
    options: dict[str, Any] = {}
    if how == "ep":
        shapes_of = dict(zip("xyz", dynamic, strict=True))
        options = {"arg_inputs": list(tensors(shapes)), "dynamic_shapes": shapes_of}
    torch_tensorrt.save(again, tmp_path / f"m.{how}", output_format=FORMATS[how], **options)
    for given in others:
        with pytest.raises((RuntimeError, AssertionError, torch.jit.Error), match="expected|Guard"):
            torch_tensorrt.load(tmp_path / f"m.{how}")(*tensors(given))


def test_an_error_names_the_sizes() -> None:
    module, shapes, dynamic, _, others = CASES["sum and half"]
    compiled = compile_case(module, tensors(shapes), tuple(dynamic))
    with pytest.raises(RuntimeError) as error:
        compiled(*tensors(others[0]))
    assert str(error.value) == (
        "the sizes of the inputs do not fit together: got x.size(1) = 3, y.size(1) = 4, z.size(1) = 4, "
        "expected x.size(1) + y.size(1) == (1 + z.size(1)) // 2"
    )


def conditions(*guards: str) -> list[Condition]:
    example = ((1, [2, 3]), {"k": {"a": 4}})
    return guard_conditions(guards, torch.utils._pytree.tree_structure(example), ["x", "y", "k"])


def test_guards_are_read() -> None:
    (found,) = conditions(
        "L['x'].size()[0]*L['y'][1].size()[2] == max(1, L['k']['a'].size()[1] // 2)"
    )
    assert found.text == "i0_0 * i2_2 == max(1, i3_1 // 2)"
    assert found.sizes() == [(0, 0), (2, 2), (3, 1)]
    program = SizeProgram()
    assert found.add_to(program) == "#3"
    assert program.instructions == ["mul i0_0 i2_2", "floordiv i3_1 2", "max 1 #1", "eq #0 #2"]
    names = ["x", "y_0", "y_1", "k_a"]
    assert message(found, names) == "x.size(0) * y_1.size(2) == max(1, k_a.size(1) // 2)"
    (power,) = conditions("L['x'].size()[0]**2 < 9 or not L['x'].size()[1] != -3")
    assert script_text(power) == "int({0}.size(0) ** 2) < 9 or not {0}.size(1) != -3"
    program = SizeProgram()
    assert power.add_to(program) == "#4"
    assert program.instructions == ["pow i0_0 2", "lt #0 9", "ne i0_1 -3", "eq #2 0", "or #1 #3"]


def test_guards_of_other_things_are_left_out() -> None:
    assert not conditions("L['n'].size()[0] == 3", "L['x'].stride()[0] == 1", "__import__('os')")
    assert not conditions("L['x'].size()[0] / 2 == 1.5", "f(L['x'].size()[0])", "1 == 1")


class WritesFirst(torch.nn.Module):
    """A stride of what is written to is a quotient by the size, which no symbol follows from."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y.flatten()[0] = 3
        return y


@pytest.mark.parametrize("whole", [True, False])
def test_sizes_that_are_quotients_by_a_symbol(whole) -> None:
    size = torch.export.Dim("size", min=1, max=9)
    x = torch.randn(2, 4, 1, 4)
    program = torch.export.export(
        WritesFirst().eval(), (x,), dynamic_shapes=({1: size, 3: size},), strict=False
    )
    limits = torch_tensorrt.Input(
        min_shape=(2, 1, 1, 1), opt_shape=(2, 4, 1, 4), max_shape=(2, 9, 1, 9)
    )
    compiled = torch_tensorrt.dynamo.compile(
        program, arg_inputs=[limits], min_block_size=1, require_full_compilation=whole
    )
    for n in (1, 2, 4, 9):
        x = torch.randn(2, n, 1, n)
        assert torch.equal(compiled(x), WritesFirst()(x))
