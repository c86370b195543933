"""Names of the parameters of an exported program."""

from __future__ import annotations

from torch.export import ExportedProgram


def argument_names(exported: ExportedProgram) -> list[str]:
    """Names of a program's parameters, as its module's `forward` has them."""
    signature = exported.module_call_graph[0].signature
    names = signature.forward_arg_names if signature is not None else None
    if names:
        return list(names)
    args, kwargs = exported.call_spec.in_spec.children()
    return [f"arg_{index}" for index in range(args.num_children)] + list(kwargs.context)
