"""A trained model as ONNX: the graph, int8, the proof that it answers alike, and how it runs without torch."""
