"""Questions about the installation that scripts ask Torch-TensorRT before they take a branch; there is no TensorRT."""


def is_tensorrt_version_supported(min_version: str) -> bool:
    """False: no version of TensorRT is here."""
    return False


def is_tensorrt_rtx_version_supported(min_version: str) -> bool:
    """False: no version of TensorRT is here."""
    return False


def is_orin() -> bool:
    """False: engines are for x86-64 and its GPUs."""
    return False


def is_tegra_platform() -> bool:
    """False: engines are for x86-64 and its GPUs."""
    return False
