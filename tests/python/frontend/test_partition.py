"""Graphs that run partly in engines and partly in PyTorch."""

from __future__ import annotations

import operator
from collections import Counter
from typing import Any

import pytest
import torch
from models_small import SortInTheMiddle, batch_input, compile_all, engines_of, torch_operators_of
from torch._export.serde.serialize import GraphModuleSerializer

import torch_tensorrt
from torch_tensorrt.dynamo import CompilationSettings
from torch_tensorrt.dynamo._compile_program import compile_program
from torch_tensorrt.dynamo._devices import tensor_values
from torch_tensorrt.dynamo._partition import check_support
from torch_tensorrt.dynamo._program import Program
from torch_tensorrt.dynamo._symbols import is_symbolic_node

RELU = torch.ops.aten.relu.default
VIEW = torch.ops.aten.view.default


def test_user_excluded_operator_splits_the_graph(mlp, assert_same) -> None:
    compiled = compile_all(mlp, batch_input(), torch_executed_ops={RELU})
    assert torch_operators_of(compiled) == {"aten.relu.default"}
    assert len(engines_of(compiled)) == 2
    for batch in (1, 6):
        x = torch.randn(batch, 16)
        assert_same(compiled(x), mlp(x))


def test_unsupported_operator_with_sizes_on_both_sides(assert_same) -> None:
    model = SortInTheMiddle().eval()
    compiled = compile_all(model, batch_input())
    assert torch_operators_of(compiled) == {"aten.tanh_backward.default"}
    assert len(engines_of(compiled)) == 2
    for batch in (1, 2, 31):
        x = torch.randn(batch, 16)
        assert_same(compiled(x), model(x))


class Diamond(torch.nn.Module):
    """Two paths that cross over PyTorch at different heights: regions must not wait for each other."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = torch.tanh(x)
        b = torch.relu(a) * 3
        c = a + 1
        d = torch.exp(b - c)
        return torch.relu(d) + c * a


def test_regions_do_not_wait_for_each_other(assert_same) -> None:
    model = Diamond().eval()
    compiled = compile_all(model, batch_input(), torch_executed_ops={RELU})
    assert torch_operators_of(compiled) == {"aten.relu.default"}
    assert len(engines_of(compiled)) == 3
    x = torch.randn(5, 16)
    assert_same(compiled(x), model(x))


class Branches(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.tanh(x) + 1, torch.exp(y) - 1


def test_independent_branches_share_an_engine(assert_same) -> None:
    compiled = compile_all(Branches().eval(), torch.randn(2, 3), torch.randn(4))
    assert len(engines_of(compiled)) == 1
    x, y = torch.randn(2, 3), torch.randn(4)
    assert_same(compiled(x, y), Branches()(x, y))


class SeveralResults(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        first, second = torch.tanh(x).chunk(2, dim=1)
        values, indices = torch.sort(first + second)
        return torch.relu(values), indices + 1


@pytest.mark.parametrize(
    "excluded", [set(), {"aten.sort.default"}, {"aten.split.Tensor"}, {"aten.chunk.default"}]
)
def test_operators_of_several_results(excluded, assert_same) -> None:
    model = SeveralResults().eval()
    compiled = compile_all(model, batch_input(), torch_executed_ops=excluded)
    x = torch.randn(3, 16)
    assert_same(compiled(x), model(x))


class DataDependent(torch.nn.Module):
    """The number of rows in the middle is known only when running."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = torch.nonzero(x[:, 0] > 0).squeeze(1)
        return torch.tanh(x.index_select(0, rows) * 2 + 1)


def test_sizes_that_depend_on_values(assert_same) -> None:
    model = DataDependent().eval()
    compiled = compile_all(model, torch.randn(8, 4))
    for _ in range(3):
        x = torch.randn(8, 4)
        assert_same(compiled(x), model(x))


def test_min_block_size_leaves_small_blocks_to_pytorch(mlp, assert_same) -> None:
    x = torch.randn(2, 16)
    compiled = torch_tensorrt.compile(
        mlp, ir="dynamo", inputs=[x], min_block_size=2, torch_executed_ops={RELU}
    )
    assert len(engines_of(compiled)) == 1
    assert torch_operators_of(compiled) == {"aten.relu.default", "aten.linear.default"}
    assert_same(compiled(x), mlp(x))


def test_require_full_compilation_names_what_is_missing() -> None:
    with pytest.raises(RuntimeError, match=r"tanh_backward.*\S"):
        compile_all(SortInTheMiddle().eval(), torch.randn(2, 16), require_full_compilation=True)
    with pytest.raises(RuntimeError, match="named in torch_executed_ops"):
        compile_all(
            SortInTheMiddle().eval(),
            torch.randn(2, 16),
            require_full_compilation=True,
            torch_executed_ops={"aten.linear"},
        )


def test_dryrun_reports_and_compiles_nothing(mlp, capsys, tmp_path, assert_same) -> None:
    x = torch.randn(2, 16)
    compiled = compile_all(mlp, x, dryrun=True, torch_executed_ops={RELU})
    report = capsys.readouterr().out
    assert "2 engine(s)" in report
    assert "aten.relu.default): named in torch_executed_ops" in report
    assert not engines_of(compiled)
    assert_same(compiled(x), mlp(x))
    compile_all(mlp, x, dryrun=str(tmp_path / "report.txt"))
    assert "1 engine(s)" in (tmp_path / "report.txt").read_text()


class Branching(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.tanh(x)
        return torch.cond(y.sum() > 0, lambda t: t + 1, lambda t: t - 1, (y,)) * 2


def test_control_flow_stays_in_pytorch(assert_same) -> None:
    model = Branching().eval()
    compiled = compile_all(
        model, torch.randn(2, 3), torch_executed_ops={torch.ops.higher_order.cond}
    )
    assert len(engines_of(compiled)) == 2
    for x in (torch.ones(2, 3), -torch.ones(2, 3)):
        assert_same(compiled(x), model(x))


class Complex(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.rfft(torch.tanh(x)).abs() + 1


def test_dtypes_that_engines_lack_stay_in_pytorch(assert_same) -> None:
    model = Complex().eval()
    compiled = compile_all(model, torch.randn(2, 8))
    x = torch.randn(2, 8)
    assert_same(compiled(x), model(x))


@torch.library.custom_op("kiln_test::double", mutates_args=())
def double(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@double.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


class Custom(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return double(torch.tanh(x)) + 1


def test_custom_operators_stay_in_pytorch(assert_same) -> None:
    compiled = compile_all(Custom().eval(), batch_input())
    assert len(engines_of(compiled)) == 2
    x = torch.randn(3, 16)
    assert_same(compiled(x), Custom()(x))


def test_every_node_is_serialised_once(monkeypatch, assert_same) -> None:
    """Asking what engines can take and compiling them are about the same nodes, but for sizes, which an engine reads
    off its own inputs, and nodes that mention them."""
    counts: Counter[str] = Counter()
    handle = GraphModuleSerializer.handle_call_function

    def counting(self: GraphModuleSerializer, node: torch.fx.Node) -> None:
        if not any(map(is_symbolic_node, (node, *node.all_input_nodes))):
            counts[node.name] += 1
        handle(self, node)

    monkeypatch.setattr(GraphModuleSerializer, "handle_call_function", counting)
    model = SortInTheMiddle().eval()
    compiled = compile_all(model, batch_input())
    assert len(engines_of(compiled)) > 1
    assert {"linear", "relu", "linear_1", "tanh"} <= counts.keys()
    assert max(counts.values()) == 1, counts
    x = torch.randn(3, 16)
    assert_same(compiled(x), model(x))


def program_on_gpu(
    model: torch.nn.Module,
    x: torch.Tensor,
    sizes: Any = None,
    second: torch.Tensor | None = None,
) -> Program:
    """A program as if x had been on a GPU: what depends on constants, or on `second` alone, is not."""
    args = (x,) if second is None else (x, second)
    shapes = None if sizes is None else (sizes,)
    exported = torch.export.export(model, args, dynamic_shapes=shapes).run_decompositions({})
    on_gpu = {node for node in exported.graph.nodes if node.name == "x"}
    for node in exported.graph.nodes:
        if node in on_gpu or not on_gpu.isdisjoint(node.all_input_nodes):
            on_gpu.add(node)
            if isinstance(value := node.meta.get("val"), torch.Tensor):
                with value.fake_mode:
                    node.meta["val"] = torch.empty(value.shape, dtype=value.dtype, device="cuda")
    return Program(exported)


def test_constants_on_the_cpu_are_in_engines_for_gpus() -> None:
    """`0.5` and `2.0` are tensors on the CPU, of which export makes copies there."""

    class Constants(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x.clone()
            y[y > 2] = 0.5
            return y * torch.tensor(2.0)

    program = program_on_gpu(Constants(), torch.randn(4, 2))
    reasons = check_support(program, CompilationSettings())
    assert reasons and set(reasons.values()) == {""}


def devices(program: Program) -> dict[str, str]:
    """Of what operators give, by their names without numbers."""
    return {
        getattr(node.target, "__name__", "").partition(".")[0]: node.meta["val"].device.type
        for node in program.graph.nodes
        if isinstance(node.meta.get("val"), torch.Tensor) and node.op == "call_function"
    }


class MadeOnTheCpu(torch.nn.Module):
    """As scripts do that name no device: numbers, indices, and what is made of them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low = torch.full((), -float("inf"))
        columns = torch.arange(x.shape[1] - 1, -1, -1).unsqueeze(0).view(-1) * 1
        return torch.where(x > 0, x, low)[:, columns]


def test_what_is_made_on_the_cpu_is_in_engines_for_gpus() -> None:
    sizes = {i: torch.export.Dim(f"size{i}", max=9) for i in range(2)}
    program = program_on_gpu(MadeOnTheCpu(), torch.randn(4, 3), sizes)
    reasons = check_support(program, CompilationSettings())
    assert reasons and set(reasons.values()) == {""}
    assert set(devices(program).values()) == {"cuda"}
    for node in program.graph.find_nodes(op="call_function", target=torch.ops.aten.full.default):
        assert node.kwargs["device"].type == "cuda"


def test_what_is_made_on_the_cpu_stays_there_where_that_is_seen() -> None:
    class Seen(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
            result = torch.ones(2) * 2
            read_there = torch.eye(2) + y  # y is on the CPU
            random = torch.rand(())
            lengths = torch.arange(2, 0, -1)
            packed = torch._pack_padded_sequence(x.unsqueeze(2), lengths, True)[0]
            return x.exp() + random + packed.sum(), result, read_there, x * torch.full((), 0.5)

    program = program_on_gpu(Seen(), torch.randn(2, 2), second=torch.randn(2, 2))
    found = devices(program)
    made = {name: found[name] for name in ("ones", "eye", "rand", "full", "arange")}
    assert [name for name, device in made.items() if device == "cuda"] == ["full"], made


def test_what_is_made_of_what_stays_on_the_cpu_stays_there_too() -> None:
    class Both(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            columns = torch.arange(2, -1, -1)
            return x[:, columns * 1].exp(), columns  # a result, and what an index is made of

    assert [devices(program_on_gpu(Both(), torch.randn(4, 3)))[n] for n in ("arange", "mul")] == [
        "cpu",
        "cpu",
    ]


def test_a_constant_that_is_a_result_is_a_copy() -> None:
    class Constant(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x + 1, torch.tensor([1.0, 2.0]).view(2, 1)

    compiled = compile_all(Constant().eval(), batch_input(), torch_executed_ops={VIEW})
    x = torch.randn(3, 16)
    compiled(x)[1].zero_()
    assert compiled(x)[1].tolist() == [[1.0], [2.0]]


@pytest.mark.parametrize("dynamic", [False, True])
def test_last_states_of_lstms_have_their_shapes(dynamic: bool, assert_same) -> None:
    """As torch.export records them on a GPU: with one dimension too many, and so what is computed with them."""

    class Last(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = torch.nn.LSTM(4, 6, 2, batch_first=True), torch.nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            states = self.lstm(x)[1]
            return self.head(states[0][-1]).tanh() + states[1].sum()

    model, x = Last().eval(), torch.randn(3, 5, 4)
    shapes = ({0: torch.export.Dim("batch", min=1, max=9)},) if dynamic else None
    exported = torch.export.export(model, (x,), dynamic_shapes=shapes).run_decompositions({})
    wrong: set[torch.fx.Node] = set()
    for node in exported.graph.nodes:
        value = node.meta.get("val")
        if node.target is torch.ops.aten.lstm.input:
            node.meta["val"] = (value[0], value[1].unsqueeze(1), value[2].unsqueeze(1))
            wrong.add(node)
        elif node.op == "call_function" and not wrong.isdisjoint(node.all_input_nodes):
            args, kwargs = torch.fx.node.map_arg(
                (node.args, node.kwargs), lambda arg: arg.meta["val"]
            )
            with value.fake_mode:
                node.meta["val"] = node.target(*args, **kwargs)
            wrong.add(node)
    module = compile_program(
        Program(exported), [x], CompilationSettings(require_full_compilation=True)
    )
    for batch in (3, 1, 9) if dynamic else (3,):
        x = torch.randn(batch, 5, 4)
        assert_same(module(x), model(x))


class PositiveRows(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = torch.nonzero(x.sum(1) > 0).squeeze(1)
        return torch.relu(x[rows] * 2) + 1


def test_sizes_that_depend_on_data_stay_in_pytorch_where_the_user_wants_it(assert_same) -> None:
    model, x = PositiveRows().eval(), torch.randn(8, 16)
    options = {"ir": "dynamo", "inputs": [x], "min_block_size": 1}
    whole = torch_tensorrt.compile(model, **options)
    assert torch_operators_of(whole) == set()
    parts = torch_tensorrt.compile(model, **options, fallback_data_dependent_ops=True)
    assert "aten.nonzero.default" in torch_operators_of(parts)
    assert len(engines_of(parts)) == 2
    for given in (x, -x.abs(), x.abs()):
        assert_same(parts(given), model(given))
        assert_same(whole(given), model(given))


def test_data_in_pytorch_and_everything_in_one_engine_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="fallback_data_dependent_ops=True leaves operators"):
        CompilationSettings(fallback_data_dependent_ops=True, require_full_compilation=True)


def test_results_that_are_read() -> None:
    """Of several results; a tensor that is indexed is no tuple of results."""
    graph = torch.fx.Graph()
    several, one, unread = (graph.placeholder(name) for name in ("several", "one", "unread"))
    tensors = [torch.empty(size) for size in range(4)]
    several.meta["val"], one.meta["val"], unread.meta["val"] = (
        tuple(tensors[:3]),
        tensors[3],
        tensors[:2],
    )
    items = [graph.call_function(operator.getitem, (node, 1)) for node in (several, several, one)]
    graph.output((items[0], items[2]))
    assert [value.numel() for value in tensor_values(several)] == [1]
    assert [value.numel() for value in tensor_values(one)] == [3]
    assert [value.numel() for value in tensor_values(unread)] == [0, 1]


ATTENTIONS = {
    "_scaled_dot_product_flash_attention": (0.0, True, False),
    "_scaled_dot_product_efficient_attention": (None, False, 0.0, True),
    "_scaled_dot_product_cudnn_attention": (None, False, 0.0, True, False),
    "_scaled_dot_product_flash_attention_for_cpu": (0.0, True),
}


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("name", ATTENTIONS)
@torch.no_grad()
def test_attention_as_programs_for_gpus_have_it(name: str, kv_heads: int) -> None:
    """What it gives beside its result, the state of random numbers in uint64 or elsewhere, nobody reads."""

    class Attend(torch.nn.Module):
        def forward(self, *qkv: torch.Tensor) -> torch.Tensor:
            return getattr(torch.ops.aten, name).default(*qkv, *ATTENTIONS[name], scale=0.3)[0]

    if kv_heads < 4 and "efficient" in name:
        pytest.skip("this kernel has no groups of heads")
    qkv = [torch.randn(2, heads, 5, 8) for heads in (4, kv_heads, kv_heads)]
    compiled = torch_tensorrt.compile(
        Attend().eval(), inputs=qkv, min_block_size=1, require_full_compilation=True
    )
    expected = torch.nn.functional.scaled_dot_product_attention(
        *qkv, is_causal=True, scale=0.3, enable_gqa=True
    )
    torch.testing.assert_close(compiled(*qkv), expected)
