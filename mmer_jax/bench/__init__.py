"""Benchmarks: commands that print what they have measured (README.md)."""
