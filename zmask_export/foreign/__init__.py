"""Networks that do not come with the package: modules and ONNX files of the user's own."""
