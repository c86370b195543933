"""Loops whose steps the run counts: while_loop, scan and map of any length, recurrent networks, and what loops are made
of: branches that may fail, suppression of boxes, rows that are unique."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from eager import check
from torch._higher_order_ops.map import map as map_rows
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop
from torch.export import Dim

import torch_tensorrt
from torch_tensorrt._operator import engine_calls

B = Dim("b", min=1, max=300)


class Steps(torch.nn.Module):
    """Two loops, one in the other, whose numbers of steps are data; values of several dtypes are carried."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, n: torch.Tensor) -> Any:
        def inner(k: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return k - 1, self.layer(y).tanh()

        def outer(
            i: torch.Tensor, y: torch.Tensor, seen: torch.Tensor, old: torch.Tensor
        ) -> tuple[torch.Tensor, ...]:
            made = while_loop(lambda k, _: k > 0, inner, (i.clone(), y))[1]
            return i + 1, made + y, seen | (made.sum() > 0), y.half()

        begin = (torch.zeros_like(n), x, n < 0, x.half())
        count, y, seen, old = while_loop(lambda i, *_: i < n, outer, begin)
        return count, y.relu(), seen, old


def module(forward: Any) -> torch.nn.Module:
    class Function(torch.nn.Module):
        def forward(self, *args: torch.Tensor) -> Any:
            return forward(*args)

    return Function().eval()


def compile_whole(model: torch.nn.Module, *args: Any, shapes: Any = None) -> Any:
    """In one engine."""
    exported = torch.export.export(model.eval(), args, dynamic_shapes=shapes, strict=False)
    compiled = torch_tensorrt.dynamo.compile(
        exported, arg_inputs=list(args), min_block_size=1, require_full_compilation=True
    )
    assert len(engine_calls(compiled.graph)) == 1
    return compiled


@pytest.fixture(scope="module")
def steps() -> tuple[torch.nn.Module, Any]:
    model = Steps().eval()
    return model, compile_whole(model, torch.randn(3, 4), torch.tensor(2), shapes=({0: B}, None))


@pytest.mark.parametrize("rows", [1, 2, 300])
@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_while_loop(steps: Any, rows: int, count: int) -> None:
    model, compiled = steps
    check(compiled, model, torch.randn(rows, 4), torch.tensor(count))


@pytest.mark.parametrize("ending", ["ep", "ts", "pt2", "kiln"])
def test_formats(steps: Any, ending: str, tmp_path: Path) -> None:
    model, compiled = steps
    path, inputs = str(tmp_path / f"m.{ending}"), [torch.randn(3, 4), torch.tensor(2)]
    if ending == "kiln":
        exported = torch.export.export(
            model, tuple(inputs), dynamic_shapes=({0: B}, None), strict=False
        )
        convert = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine
        Path(path).write_bytes(convert(exported, arg_inputs=inputs))
    else:
        names = {"ep": "exported_program", "ts": "torchscript", "pt2": "aot_inductor"}
        torch_tensorrt.save(compiled, path, output_format=names[ending], arg_inputs=inputs)
    loaded = torch_tensorrt.load(path)
    loaded = loaded.module() if hasattr(loaded, "module") else loaded
    for rows, count in ((3, 2), (7, 4), (2, 0)):
        check(loaded, model, torch.randn(rows, 4), torch.tensor(count))


def test_scan_and_map_over_any_number_of_rows() -> None:
    def body(state: Any, row: torch.Tensor) -> tuple[Any, torch.Tensor]:
        new = state["a"] * 0.9 + row
        return {"a": new, "n": state["n"] + 1}, new.tanh() * state["n"]

    def forward(x: torch.Tensor) -> Any:
        state = {"a": torch.zeros(4), "n": torch.tensor(0)}
        halves = map_rows(lambda row, last: (row * last, row.sum()), x, x[0] + 1)
        return scan(body, state, x), halves

    model = module(forward)
    compiled = compile_whole(model, torch.randn(3, 4), shapes={"args": ({0: B},)})
    for rows in (1, 2, 129):
        check(compiled, model, torch.randn(rows, 4))


def test_a_recurrent_network_over_many_steps() -> None:
    network = torch.nn.LSTM(6, 8, proj_size=3, batch_first=True, bidirectional=True).eval()
    # Steps times directions are what counts; torch.export traces each of them, which takes long.
    compiled = compile_whole(network, torch.randn(5, 65, 6), shapes=({0: Dim("n", min=2)},))
    for rows in (2, 9):
        check(compiled, network, torch.randn(rows, 65, 6))


def test_a_branch_that_may_fail_runs_only_if_it_is_taken() -> None:
    def forward(x: torch.Tensor, k: torch.Tensor) -> Any:
        return torch.cond(k.sum() > 0, lambda x, k: x[k], lambda x, k: x[k * 0] - 1, (x, k))

    model = module(forward)
    compiled = compile_whole(model, torch.randn(5, 4), torch.tensor([1, 2]))
    for k in ([1, 4], [0, 0], [-9, 5]):
        check(compiled, model, torch.randn(5, 4), torch.tensor(k))
    with pytest.raises(IndexError, match="index"):
        compiled(torch.randn(5, 4), torch.tensor([1, 5]))


# Boxes


def nms(boxes: torch.Tensor, scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """What torchvision does, one box after the other."""
    order = scores.sort(stable=True, descending=True).indices
    left, top, right, bottom = boxes[order].unbind(1)
    areas = (right - left) * (bottom - top)
    gone = torch.zeros(len(order), dtype=torch.bool)
    kept = []
    for i in range(len(order)):
        if gone[i]:
            continue
        kept.append(order[i])
        width = (torch.minimum(right[i], right) - torch.maximum(left[i], left)).clamp(min=0)
        height = (torch.minimum(bottom[i], bottom) - torch.maximum(top[i], top)).clamp(min=0)
        common = width * height
        gone[i + 1 :] |= (common / (areas[i] + areas - common)).double()[i + 1 :] > threshold
    return torch.stack(kept) if kept else order[:0]


@pytest.fixture(scope="module")
def torchvision_nms() -> Any:
    if not hasattr(torch.ops.torchvision, "nms"):
        torch.library.define(
            "torchvision::nms", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        )
        torch.library.impl("torchvision::nms", "CPU")(nms)

        @torch.library.register_fake("torchvision::nms")
        def fake(dets: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
            return dets.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.long)

    return torch.ops.torchvision.nms


def test_suppression_of_boxes(torchvision_nms: Any) -> None:
    def forward(boxes: torch.Tensor, scores: torch.Tensor) -> Any:
        kept = torchvision_nms(boxes, scores, 0.4)
        return kept, boxes[kept] * 2

    model = module(forward)
    boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 1.9], [3, 3, 4, 4]])
    shapes = {"args": ({0: B}, {0: B})}
    compiled = compile_whole(model, boxes, torch.tensor([0.5, 0.9, 0.5]), shapes=shapes)
    for count in (1, 2, 3, 60, 300):
        corner = torch.rand(count, 2) * 6
        boxes = torch.cat((corner, corner + torch.rand(count, 2) * 3), 1)
        scores = torch.rand(count)
        for given in ((boxes, scores), (boxes.round(), (scores * 4).round()), (boxes * 0, scores)):
            check(compiled, model, *given)


# Rows


def test_unique_rows_and_the_first_that_are_true() -> None:
    def forward(x: torch.Tensor, y: torch.Tensor) -> Any:
        return (
            torch.unique(x, dim=0, return_inverse=True, return_counts=True),
            torch.unique(y, dim=1),
            torch.unique_consecutive(x, dim=0, return_inverse=True, return_counts=True),
            torch.nonzero_static(x > 1, size=7),
            torch.nonzero_static(x[:, 0] > 1, size=3, fill_value=9),
            torch.nonzero_static(x[0, 0] > 1, size=2),
        )

    model = module(forward)
    shapes = {"args": ({0: B}, None)}
    compiled = compile_whole(model, torch.ones(3, 2), torch.ones(2, 5, 3) > 0, shapes=shapes)
    for rows in (1, 2, 8, 300):
        for high in (1, 3, 40):
            x = torch.randint(0, high, (rows, 2)).float() / 2
            check(compiled, model, x, torch.rand(2, 5, 3) > 0.4)
