"""A trained network for other programs: ONNX and others, one HTML file, C."""
