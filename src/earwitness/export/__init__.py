"""ONNX graphs of a model folder, for captioning without torch."""
