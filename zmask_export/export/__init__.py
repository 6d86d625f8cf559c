"""nn.Module to a bare ONNX graph with taps."""
