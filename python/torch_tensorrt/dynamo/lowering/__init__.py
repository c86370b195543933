"""Users' own passes over the graph, and the steps before an engine is built, for scripts that take them one by one."""

from torch_tensorrt.dynamo.lowering.passes import (
    get_decompositions,
    post_lowering,
    pre_export_lowering,
)

__all__ = ["get_decompositions", "post_lowering", "pre_export_lowering"]
