"""What compiles and runs graphs: ONNX Runtime, TensorRT and TensorRT-RTX."""
