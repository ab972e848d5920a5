"""What ships: an exported model answers, with numpy and ONNX Runtime. PyTorch is never imported here."""
