"""Multimodal emotion recognition with missing or noisy modalities, in JAX and Flax."""

__version__ = "0.1.0"
