"""Kiln: compiles PyTorch and ONNX models ahead of time into engines, and runs them. Needs NumPy, but not PyTorch.

engine = kiln.compile("model.pt2")          # what torch.export.save wrote
session = kiln.load(engine).session()
outputs = session.run(np.zeros((8, 3, 224, 224), np.float32))
"""

from kiln._library import library_directory, runtime
from kiln.accuracy import accuracy
from kiln.arrays import BFloat16Array, Float8Array, TensorView
from kiln.cache import EngineCache, Tuning
from kiln.compiler import (
    InputRange,
    Model,
    NodeSupport,
    compile,
    compile_key,
    passes,
    refit,
    supported_ops,
)
from kiln.engine import (
    CancelFlag,
    Damage,
    DimRange,
    Engine,
    Session,
    TensorInfo,
    inspect,
    load,
    verify,
)
from kiln.errors import (
    CancelledError,
    DivisionByZeroError,
    FileError,
    InternalError,
    InvalidArgumentError,
    InvalidEngineError,
    KernelFailedError,
    KilnError,
    NotFoundError,
    OutOfBoundsError,
    OutOfMemoryError,
    OutOfRangeError,
    UnsupportedError,
)
from kiln.kernels import has_kernel, load_kernels, register_kernel
from kiln.quantization import Quantization

__version__: str = runtime().kiln_version().decode()

__all__ = [
    "BFloat16Array",
    "CancelFlag",
    "CancelledError",
    "Damage",
    "DimRange",
    "DivisionByZeroError",
    "Engine",
    "EngineCache",
    "FileError",
    "Float8Array",
    "InputRange",
    "InternalError",
    "InvalidArgumentError",
    "InvalidEngineError",
    "KernelFailedError",
    "KilnError",
    "Model",
    "NodeSupport",
    "NotFoundError",
    "OutOfBoundsError",
    "OutOfMemoryError",
    "OutOfRangeError",
    "Quantization",
    "Session",
    "TensorInfo",
    "TensorView",
    "Tuning",
    "UnsupportedError",
    "accuracy",
    "compile",
    "compile_key",
    "has_kernel",
    "inspect",
    "library_directory",
    "load",
    "load_kernels",
    "passes",
    "refit",
    "register_kernel",
    "supported_ops",
    "verify",
]
