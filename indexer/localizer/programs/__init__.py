"""Programs of a pack: ONNX files looked through, then run by ONNX Runtime."""
