"""The originals' reference values, held against ours by `python -m mmer_jax.parity`."""
