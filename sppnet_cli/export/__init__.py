"""A network or a detector as one graph of tensors, and as an ONNX file."""
