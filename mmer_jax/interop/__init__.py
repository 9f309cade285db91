"""Exchange of weights with the PyTorch code of the papers."""
