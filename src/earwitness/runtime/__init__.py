"""Captions without torch: ONNX graphs run by onnxruntime, searched in numpy."""
