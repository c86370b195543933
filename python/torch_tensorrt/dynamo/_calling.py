"""How a graph module is called: plain Python parameters and results where their structure allows, which is faster."""

from __future__ import annotations

import operator
from typing import Any

from torch import nn
from torch.fx import Graph, GraphModule, Node
from torch.fx.graph import CodeGen, _PyTreeCodeGen, _PyTreeInfo
from torch.utils import _pytree as pytree

from torch_tensorrt._structure import is_flat


def set_calling(
    graph: Graph, names: list[str], in_spec: pytree.TreeSpec, out_spec: pytree.TreeSpec
) -> None:
    """Makes a graph with flat inputs and results callable with the structures of the specs.

    Args:
        graph: its output is a flat tuple.
        names: of the parameters, positional ones first.
        in_spec: the tree of (args, kwargs).
        out_spec: the tree of the results.
    """
    placeholders = graph.find_nodes(op="placeholder")
    flat = len(names) == len(placeholders) and is_flat(in_spec)
    if not flat or not _is_plain(out_spec):
        codegen = _FlatInputs if flat else _PyTreeCodeGen
        graph.set_codegen(codegen(_PyTreeInfo(names, in_spec, out_spec)))
        return
    for placeholder, name in zip(placeholders, names, strict=True):
        placeholder.target = name
    output = graph.output_node()
    output.args = (pytree.tree_unflatten(list(output.args[0]), out_spec),)
    graph.set_codegen(CodeGen())


class _FlatInputs(_PyTreeCodeGen):
    """Code that gives results in their structure, and takes each parameter as it is: nothing is to be taken apart."""

    def gen_var_bindings(self, fn_args: list[str], free_vars: list[str], expanded_def: bool) -> str:
        names = [name.split(":")[0].split("#")[0] for name in free_vars]
        return f"\n    {', '.join(names)}, = {', '.join(fn_args)},"


class _Buffer:
    """A buffer as an attribute of a module's class, where Python looks first: by way of `Module.__getattr__`, which it
    tries last, getting a buffer takes seven times as long."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, module: nn.Module | None, owner: type | None = None) -> Any:
        if module is not None and self._name in module._buffers:
            return module._buffers[self._name]
        raise AttributeError(self._name)  # where the module goes on to `Module.__getattr__`


class _NestedBuffer:
    """A buffer of a submodule, such as "layers.0.keys", as an attribute of the class of the module around it."""

    def __init__(self, path: str) -> None:
        *self._owners, self._name = path.split(".")
        self._by_attributes = operator.attrgetter(path)

    def __get__(self, module: nn.Module | None, owner: type | None = None) -> Any:
        if module is None:
            return self
        at = module
        try:
            for name in self._owners:
                at = at._modules[name]
            return at._buffers[self._name]
        except (KeyError, AttributeError):  # somebody made it something else
            return self._by_attributes(module)


def shorten_calls(module: GraphModule) -> None:
    """Lets calls of a module reach its code, and its code the buffers that it needs in every call, in fewer steps. What
    fx adds to `Module.__call__` only points at a line of generated code where that raises."""
    kind = type(module)  # fx makes one for each module
    kind.__call__ = nn.Module.__call__
    nested = {}
    for node in module.graph.find_nodes(op="get_attr"):
        path = str(node.target)
        if path in module._buffers:
            setattr(kind, path, _Buffer(path))
        elif "." in path and _is_buffer(module, path):
            nested[node] = path
    if not nested:
        return
    # What runs has names of its own for them; the graph, and the code that copies are made from, keep those that
    # everybody else goes by.
    code = module._code
    for node, path in nested.items():
        name = "_at_" + path.replace(".", "_")
        while hasattr(module, name):
            name += "_"
        setattr(kind, name, _NestedBuffer(path))
        node.target = name
    module.recompile()
    module._code = code
    for node, path in nested.items():
        node.target = path


def _is_buffer(module: nn.Module, path: str) -> bool:
    owner, _, name = path.rpartition(".")
    return name in module.get_submodule(owner)._buffers


def _is_plain(out_spec: pytree.TreeSpec) -> bool:
    """Whether the results are a tensor or tuples of them; fx changes the types of lists and dictionaries."""
    return out_spec.is_leaf() or (
        out_spec.type is tuple and all(_is_plain(child) for child in out_spec.children())
    )


def flat_results(graph: Graph) -> list[Any]:
    """The results of a graph in their flat order, whatever their structure."""
    result = graph.output_node().args[0]
    return pytree.tree_leaves(result, is_leaf=lambda leaf: isinstance(leaf, Node) or leaf is None)
