"""The device that a model runs on."""

import torch

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
