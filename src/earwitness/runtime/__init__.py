"""Captions without torch: ONNX graphs run by onnxruntime, searched in numpy."""

from earwitness.runtime.captioner import RuntimeCaptioner

__all__ = ["RuntimeCaptioner"]
