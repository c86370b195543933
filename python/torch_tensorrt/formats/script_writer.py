"""A graph as TorchScript, written out and not traced.

Tracing runs the module and keeps what it saw: sizes become constants, parameters lose their names. A graph of operators
says everything already, so it is printed as the source of one method and compiled. Nothing runs, no sample inputs are
needed, and sizes stay arithmetic on sizes of the inputs.
"""

from __future__ import annotations

import keyword
import operator
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.fx.graph import _PyTreeCodeGen
from torch.fx.immutable_collections import immutable_dict, immutable_list
from torch.utils import _pytree as pytree

from torch_tensorrt.dynamo._calling import flat_results
from torch_tensorrt.dynamo._symbols import get_attribute

_INFIX = {
    operator.add: "+",
    operator.sub: "-",
    operator.mul: "*",
    operator.floordiv: "//",
    operator.mod: "%",
    operator.eq: "==",
    operator.ne: "!=",
    operator.lt: "<",
    operator.le: "<=",
    operator.gt: ">",
    operator.ge: ">=",
}
_SIZES = {
    torch.ops.aten.sym_size.int: "{}.size({})",
    torch.ops.aten.sym_stride.int: "{}.stride({})",
    torch.ops.aten.sym_numel.default: "{}.numel()",
    torch.ops.aten.sym_storage_offset.default: "{}.storage_offset()",
    operator.pow: "int({} ** {})",  # TorchScript's power of integers is a float
    operator.neg: "(-{})",
    torch.sym_max: "max({}, {})",
    torch.sym_min: "min({}, {})",
    torch.sym_not: "(not {})",
}
_SCALARS = {torch.SymInt: "int", torch.SymFloat: "float", torch.SymBool: "bool"}
# Names that the written source uses itself.
_RESERVED = {"self", "torch", "float", "int", "complex", "max", "min", "print"}


class ScriptError(RuntimeError):
    """A graph that TorchScript cannot express."""


def write_script(
    module: GraphModule, names: Sequence[str] | None = None, checks: Sequence[str] = ()
) -> torch.jit.ScriptModule:
    """Makes a ScriptModule of a graph whose nodes are operators.

    Args:
        module: its parameters, buffers and constants become buffers of the result, without a copy.
        names: of the parameters; those of the module if None.
        checks: statements to run first; `{0}` stands for the first flat input, and so on.

    Raises:
        ScriptError: something that TorchScript lacks; the text says what.
    """
    writer = _Writer(module, names)
    source = writer.source(checks)
    holder = torch.nn.Module()
    for name, value in writer.attributes.items():
        holder.register_buffer(name, value.detach())
    try:
        return define_script(holder.eval(), source)
    except Exception as error:  # the compiler's own types are not public
        raise ScriptError(_reason(error)) from error


def define_script(holder: torch.nn.Module, source: str) -> torch.jit.ScriptModule:
    """A ScriptModule with the buffers and submodules of another one, and the methods of a source text."""
    # Types must not be shared: modules with buffers of the same names would get each other's method.
    result = torch.jit._recursive.create_script_module(
        holder, lambda _: [], share_types=False, is_tracing=True
    )
    result.define(source)
    return result


def _reason(error: Exception) -> str:
    """The compiler's complaint, without the declarations that it lists."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:6])[:600]


class _Writer:
    def __init__(self, module: GraphModule, names: Sequence[str] | None) -> None:
        self._module = module
        self._graph = module.graph
        self._names = names
        self._text: dict[Node, str] = {}
        self._lines: list[str] = []
        self._indent = "    "
        self._prefix, self._count = "v", 0  # of names of values
        self._inputs: list[str] = []  # text of each flat input
        self.attributes: dict[str, torch.Tensor] = {}

    def source(self, checks: Sequence[str]) -> str:
        parameters = self._parameters()
        for node, text in zip(self._graph.find_nodes(op="placeholder"), self._inputs, strict=True):
            self._text[node] = text
        for check in checks:
            self._add(check.format(*self._inputs))
        self._body(self._module)
        self._add(f"return {self._result(self._results())}")
        head = ", ".join(["self", *parameters])
        return "\n".join([f"def forward({head}):", *self._lines, ""])

    def _add(self, line: str) -> None:
        self._lines.append(self._indent + line)

    def _body(self, module: GraphModule) -> None:
        for node in module.graph.nodes:
            if node.op == "get_attr":
                self._get_attribute(module, node)
            elif node.target is torch.ops.higher_order.cond:
                self._branches(module, node)
            elif node.op == "call_function":
                call = self._call(node)
                self._add(f"{self._new_name(node)} = {call}")
            elif node.op not in ("placeholder", "output") and node.target != "_guards_fn":
                raise ScriptError(f"the graph calls {node.target!r}, which is not an operator")

    def _new_name(self, node: Node) -> str:
        self._count += 1
        self._text[node] = f"{self._prefix}{self._count}"
        return self._text[node]

    def _branches(self, module: GraphModule, node: Node) -> None:
        """torch.cond as an if: both branches give the same name a tuple."""
        condition, *branches, operands = node.args
        heads = (f"if bool({self._value(condition)}):", "else:")
        name = self._new_name(node)
        for head, branch in zip(heads, branches, strict=True):
            self._add(head)
            self._indent += "    "
            inner = getattr(module, str(branch.target))
            inputs = inner.graph.find_nodes(op="placeholder")
            self._text.update(zip(inputs, map(self._value, operands), strict=True))
            self._body(inner)
            self._add(f"{name} = {self._result(tuple(inner.graph.output_node().args[0]))}")
            self._indent = self._indent[:-4]

    def _parameters(self) -> list[str]:
        """The parameters with their types; fills in how each flat input is reached."""
        placeholders = self._graph.find_nodes(op="placeholder")
        codegen = self._graph._codegen
        if isinstance(codegen, _PyTreeCodeGen):
            info = codegen.pytree_info
            args, kwargs = info.in_spec.children()
            specs = [*args.children(), *kwargs.children()]
            names = [name for name in info.orig_args if name != "self"]
        else:
            specs = [pytree.tree_structure(0)] * len(placeholders)
            names = [str(node.target) for node in placeholders]
        names = list(self._names or names)
        if len(names) != len(specs):
            raise ScriptError(f"there are {len(names)} names for {len(specs)} parameters")
        while any(name.startswith(self._prefix) for name in names):
            self._prefix += "_"
        leaves = iter(placeholders)
        return [
            f"{_checked_name(name)}: {self._bind(spec, name, leaves)}"
            for name, spec in zip(names, specs, strict=True)
        ]

    def _bind(self, spec: pytree.TreeSpec, text: str, leaves: Any) -> str:
        """The type of one input; `text` reaches it."""
        if spec.is_leaf():
            self._inputs.append(text)
            return _type_of(next(leaves).meta.get("val", torch.empty(0)))
        keys = spec.context if spec.type in (dict, OrderedDict) else range(spec.num_children)
        if spec.type in (list, dict, OrderedDict):
            self._check_items(text, list(keys), spec.type is list)
        types = [
            self._bind(child, f"{text}[{key!r}]", leaves)
            for key, child in zip(keys, spec.children(), strict=True)
        ]
        if spec.type is tuple:
            return f"Tuple[{', '.join(types)}]"
        if spec.type in (list, dict, OrderedDict) and len(set(types)) == 1:
            return f"List[{types[0]}]" if spec.type is list else f"Dict[str, {types[0]}]"
        raise ScriptError(f"an input is a {spec.type.__name__} of {', '.join(types) or 'nothing'}")

    def _check_items(self, text: str, keys: list[Any], is_list: bool) -> None:
        """TorchScript does not mind what is too much, and says nothing of what is missing."""
        where = text.replace('"', "'")
        for key in () if is_list else keys:
            self._add(f'assert {key!r} in {text}, "input {where} has no key {key!r}"')
        expected = (
            f"{len(keys)} items" if is_list else f"the keys {', '.join(map(repr, keys))} alone"
        )
        self._add(f'assert len({text}) == {len(keys)}, "input {where}: expected {expected}"')

    def _get_attribute(self, module: GraphModule, node: Node) -> None:
        value = get_attribute(module, str(node.target))
        if isinstance(value, GraphModule):
            return  # a branch, written where it is used
        if not isinstance(value, torch.Tensor):
            raise ScriptError(f"the graph uses {node.target!r}, which is a {type(value).__name__}")
        name = str(node.target).replace(".", "_")
        while name in self.attributes and self.attributes[name] is not value:
            name += "_"
        self.attributes[name] = value
        self._text[node] = f"self.{name}"

    def _call(self, node: Node) -> str:
        target = node.target
        if target is operator.getitem:
            return f"{self._value(node.args[0])}[{self._value(node.args[1])}]"
        if target in _INFIX:
            return f"({self._value(node.args[0])} {_INFIX[target]} {self._value(node.args[1])})"
        if target in _SIZES:
            return _SIZES[target].format(*map(self._value, node.args))
        if not isinstance(target, torch._ops.OpOverload):
            raise ScriptError(f"the graph calls {getattr(target, '__name__', target)!r}")
        schema = {argument.name: argument.type for argument in target._schema.arguments}
        types = list(schema.values())
        args = [self._value(arg, types[index]) for index, arg in enumerate(node.args)]
        args += [f"{key}={self._value(arg, schema[key])}" for key, arg in node.kwargs.items()]
        call = f"torch.ops.{target.namespace}.{target._opname}({', '.join(args)})"
        # TorchScript takes a value read out of a tensor for a number of no certain type.
        for symbolic, name in _SCALARS.items():
            if isinstance(node.meta.get("val"), symbolic):
                return f"{name}({call})"
        return call

    def _value(self, value: Any, of_type: Any = None) -> str:
        """A value as text; `of_type` is the type that an operator wants."""
        if isinstance(value, Node):
            return self._text[value]
        if isinstance(value, (list, tuple)):
            while isinstance(of_type, torch.OptionalType):
                of_type = of_type.getElementType()
            element = of_type.getElementType() if isinstance(of_type, torch.ListType) else None
            text = f"[{', '.join(self._value(item, element) for item in value)}]"
            if element is None or (value and None not in value):
                return text
            kind = element.annotation_str.replace("SymInt", "int")
            return f"torch.jit.annotate(List[{kind}], {text})"
        return _literal(value)

    def _results(self) -> Any:
        codegen = self._graph._codegen
        if isinstance(codegen, _PyTreeCodeGen):
            return pytree.tree_unflatten(flat_results(self._graph), codegen.pytree_info.out_spec)
        return self._graph.output_node().args[0]

    def _result(self, value: Any) -> str:
        if type(value) in (dict, OrderedDict, immutable_dict):
            items = [f"{key!r}: {self._result(item)}" for key, item in value.items()]
            return f"{{{', '.join(items)}}}"
        if type(value) is tuple:
            return f"({', '.join(self._result(item) for item in value)},)" if value else "()"
        if type(value) in (list, immutable_list):
            return f"[{', '.join(self._result(item) for item in value)}]"
        if pytree.tree_structure(value).is_leaf():
            return self._value(value)
        raise ScriptError(f"a result is a {type(value).__name__}")


def _checked_name(name: str) -> str:
    if name in _RESERVED or keyword.iskeyword(name) or not name.isidentifier():
        raise ScriptError(f"a parameter is called {name!r}")
    return name


def _type_of(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return "Tensor"
    if value is None:
        return "Optional[Tensor]"
    for python_type, name in ((torch.SymInt, "int"), (bool, "bool"), (int, "int")):
        if isinstance(value, python_type):
            return name
    if isinstance(value, (float, str)):
        return type(value).__name__
    raise ScriptError(f"an input is a {type(value).__name__}")


def _literal(value: Any) -> str:
    if isinstance(value, float) and value != value:
        return 'float("nan")'
    if value in (float("inf"), float("-inf")):
        return f'float("{value}")'
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    if isinstance(value, (torch.dtype, torch.layout, torch.memory_format)):
        return str(value)
    if isinstance(value, torch.device):
        return f'torch.device("{value}")'
    raise ScriptError(f"the graph has a {type(value).__name__} as an argument")
