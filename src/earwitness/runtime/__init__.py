"""Captions without torch: ONNX graphs run by onnxruntime, searched in numpy."""

import os

# onnxruntime reports its use to Microsoft otherwise, and keeps an identity in the user's home.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from earwitness.runtime.captioner import RuntimeCaptioner  # noqa: E402

__all__ = ["RuntimeCaptioner"]
