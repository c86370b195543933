"""`torch_tensorrt.dynamo.Debugger`: graphs, logs, profiles and descriptions in files."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest
import torch
from models_small import batch_input, compile_all

import kiln
import torch_tensorrt
from torch_tensorrt.dynamo import Debugger


def files(folder: Path) -> list[str]:
    """Names without their numbers, in the order in which they were written."""
    return [path.name[4:] for path in sorted(folder.glob("[0-9]*"))]


def content(folder: Path, name: str) -> str:
    (path,) = folder.glob(f"*_{name}")
    return path.read_text()


def test_graphs_of_the_front_end(mlp, tmp_path) -> None:
    stages = ["decompose", "partition"]
    with Debugger(
        capture_fx_graph_before=stages, capture_fx_graph_after=stages, logging_dir=tmp_path
    ):
        compile_all(mlp, batch_input())
    expected = [f"{stage}_{when}.txt" for stage in stages for when in ("before", "after")]
    assert files(tmp_path) == expected
    assert "aten.layer_norm" in content(tmp_path, "partition_before.txt")
    after = content(tmp_path, "partition_after.txt")
    assert "execute_engine" in after
    assert re.search(r"torch\.float32\[s\d+, 8\]", after)
    compile_all(mlp, batch_input())
    assert files(tmp_path) == expected


def test_graphs_of_compiler_passes(mlp, tmp_path) -> None:
    with Debugger(
        capture_fx_graph_before=["fuse_epilogues"],
        capture_fx_graph_after=["fuse_epilogues", "canonicalise"],
        logging_dir=tmp_path,
    ):
        compile_all(torch.nn.Sequential(mlp, torch.nn.ReLU()), torch.randn(4, 16))
    names = files(tmp_path)
    assert "fuse_epilogues_before.plan" in names
    assert "fuse_epilogues_after.plan" in names
    before = content(tmp_path, "fuse_epilogues_before.plan")
    after = content(tmp_path, "fuse_epilogues_after.plan")
    assert before != after
    assert set(names) <= {
        "fuse_epilogues_before.plan",
        "fuse_epilogues_after.plan",
        "canonicalise_after.ir",
    }


def test_the_names_of_the_compilers_passes_are_known(tmp_path) -> None:
    passes = kiln.passes()
    names = [each["name"] for each in (*passes["graph"], *passes["plan"])]
    assert {"canonicalise", "fuse_epilogues"} <= set(names)
    Debugger("error", capture_fx_graph_after=names, logging_dir=tmp_path)


def test_profiles_of_every_call_in_the_block(mlp, tmp_path) -> None:
    x = torch.randn(4, 16)
    with Debugger("error", save_engine_profile=True, logging_dir=tmp_path):
        compiled = compile_all(mlp, batch_input())
        torch.testing.assert_close(compiled(x), mlp(x).detach())
        compiled(x)
    compiled(x)
    assert files(tmp_path) == ["engine_0_engine_execution_profile.trace"] * 2
    trace = json.loads((tmp_path / "002_engine_0_engine_execution_profile.trace").read_text())
    events = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert len(events) >= 2
    assert all(event["dur"] > 0 for event in events)
    assert not compiled._forward_hooks


def test_descriptions_of_engines(mlp, tmp_path) -> None:
    with Debugger("error", save_layer_info=True, logging_dir=tmp_path):
        compile_all(mlp, batch_input())
        torch_tensorrt.convert_method_to_trt_engine(mlp, inputs=[batch_input()])
    assert files(tmp_path) == ["engine_0_layer_info.json", "engine_layer_info.json"]
    info = json.loads(content(tmp_path, "engine_layer_info.json"))
    assert info["inputs"][0]["name"] == "x"
    assert info["kernels"]


def test_logs_go_to_a_file_and_levels_come_back(mlp, tmp_path) -> None:
    logger = logging.getLogger("torch_tensorrt")
    before = logger.level, list(logger.handlers)
    with Debugger("debug", logging_dir=tmp_path):
        assert logger.level == logging.DEBUG
        compile_all(mlp, batch_input())
    assert (logger.level, list(logger.handlers)) == before
    log = (tmp_path / "torch_tensorrt_logging.log").read_text()
    assert "partitioning: 1 engine(s)" in log
    assert "program to partition" not in log
    with Debugger("graphs", logging_dir=tmp_path):
        compile_all(mlp, batch_input())
    assert "program to partition" in (tmp_path / "torch_tensorrt_logging.log").read_text()


def test_users_lowering_passes_are_stages(mlp, tmp_path) -> None:
    from torch_tensorrt.dynamo.lowering.passes import _aten_lowering_pass, _remove_lowering_pass

    @_aten_lowering_pass
    def nothing_at_all(gm, settings):
        return gm

    try:
        with Debugger(capture_fx_graph_after=["nothing_at_all"], logging_dir=tmp_path):
            compile_all(mlp, torch.randn(4, 16))
    finally:
        _remove_lowering_pass(index=0)
    assert files(tmp_path) == ["nothing_at_all_after.txt"]
    with pytest.raises(ValueError, match="nothing_at_all"):
        Debugger(capture_fx_graph_after=["nothing_at_all"])


def test_passes_of_torch_tensorrt_have_no_graphs(mlp, tmp_path, caplog) -> None:
    with Debugger(
        capture_fx_graph_before=["remove_detach"],
        capture_fx_graph_after=["complex_graph_detection", "decompose"],
        logging_dir=tmp_path,
    ):
        compile_all(mlp, torch.randn(4, 16))
    assert files(tmp_path) == ["decompose_after.txt"]
    assert "capture_fx_graph_before has 'remove_detach', a pass of Torch-TensorRT" in caplog.text
    assert "complex_graph_detection" in caplog.text


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="Invalid log level: got 'verbose', expected one of"):
        Debugger("verbose")
    with pytest.raises(
        ValueError, match="capture_fx_graph_before has 'fuse', expected names among"
    ):
        Debugger(capture_fx_graph_before=["fuse"])
    with pytest.raises(TypeError, match="expected a list of names"):
        Debugger(capture_fx_graph_after="convert")
    with pytest.raises(ValueError, match="cudagraph"):
        Debugger(save_engine_profile=True, profile_format="cudagraph")


def test_a_debugger_ends_with_an_exception_and_can_be_used_again(mlp, tmp_path) -> None:
    debugger = Debugger("error", save_layer_info=True, logging_dir=tmp_path)
    with pytest.raises(KeyError), debugger:
        raise KeyError
    with debugger:
        with pytest.raises(RuntimeError, match="entered already"), debugger:
            pass
        compile_all(mlp, batch_input())
    compile_all(mlp, batch_input())
    assert files(tmp_path) == ["engine_0_layer_info.json"]
