"""The device that a model runs on, and the number format it computes in."""

from collections.abc import Generator
from contextlib import contextmanager

import torch

from earwitness.caption import Precision
from earwitness.errors import ConfigError


def torch_device(name: str) -> str:
    """`name` itself, or for "auto" cuda if there is a GPU, else cpu.

    Raises:
        ConfigError: this machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError):
        known = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        known += ["mps"] if torch.backends.mps.is_available() else []
        raise ConfigError(
            f"--device {name}: not on this machine; expected auto, {', '.join(known)}"
        ) from None
    return name


@contextmanager
def autocast(device: torch.device, kind: Precision) -> Generator[None]:
    """What is computed inside has this number format; fp32 changes nothing.

    Raises:
        ConfigError: int8, which only ONNX models have.
    """
    if kind == "fp32":
        yield
        return
    if kind == "int8":
        raise ConfigError(
            "precision int8: only models with an int8 ONNX graph, on a CPU, compute in int8; "
            "expected fp32, bf16 or fp16"
        )
    dtype = torch.bfloat16 if kind == "bf16" else torch.float16
    with torch.autocast(device.type, dtype=dtype):
        yield
