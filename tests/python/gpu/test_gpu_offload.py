"""A model on a GPU leaves it while it is compiled: `offload_module_to_cpu`."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from gpu.models import Recurrent
from torch import nn

import torch_tensorrt


class Wide(nn.Module):
    """Weights of 64 MiB, some tied, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(2048, 4096, bias=False), nn.Linear(4096, 2048, bias=False)
        self.tied = nn.Linear(2048, 4096, bias=False)
        self.tied.weight = self.up.weight
        self.register_buffer("scale", torch.rand(2048))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tied(self.down(self.up(x).relu()) * self.scale)


def allocated() -> int:
    gc.collect()
    torch.cuda.synchronize()
    return torch.cuda.memory_allocated()


@pytest.mark.parametrize("exported", [False, True])
def test_the_gpu_has_no_weights_after_compiling(exported: bool, assert_near: Any) -> None:
    before = allocated()
    model, x = Wide().eval().cuda(), torch.randn(4, 2048, device="cuda")
    with torch.no_grad():
        expected = model(x)
    weights = 2 * 4 * 2048 * 4096
    assert allocated() - before > weights
    what = torch.export.export(model, (x,)) if exported else model
    compiled = torch_tensorrt.compile(what, ir="dynamo", inputs=[x], offload_module_to_cpu=True)
    assert all(tensor.device.type == "cpu" for tensor in model.state_dict().values())
    assert model.tied.weight is model.up.weight
    assert allocated() - before < weights // 8
    assert_near(compiled(x), expected)
    model.cuda()
    with torch.no_grad():
        assert_near(model(x), expected)


def test_it_stays_where_it_is_otherwise(assert_near: Any) -> None:
    model, x = Wide().eval().cuda(), torch.randn(4, 2048, device="cuda")
    torch_tensorrt.compile(model, ir="dynamo", inputs=[x])
    assert all(tensor.is_cuda for tensor in model.state_dict().values())


def test_what_stays_in_pytorch_has_its_weights_on_the_gpu(assert_near: Any) -> None:
    model, x = Recurrent().eval().cuda(), torch.randn(2, 5, 16, device="cuda")
    with torch.no_grad():
        expected = model(x)
    compiled = torch_tensorrt.compile(
        model,
        ir="dynamo",
        inputs=[x],
        min_block_size=1,
        offload_module_to_cpu=True,
        torch_executed_ops={torch.ops.aten.linear.default, torch.ops.aten.lstm.input},
    )
    with torch.no_grad():
        assert_near(compiled(x), expected)
