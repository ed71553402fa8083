"""Export of trained networks for other programs: ONNX and others, one HTML file, C."""

KINDS = ("onnx", "pt2", "safetensors", "html")  # suffixes of the files that `formats` writes
