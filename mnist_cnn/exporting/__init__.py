"""Export of trained networks for other programs: ONNX and others, one HTML file, C."""
