"""Where the repository is, and where compiled programs are kept."""

import os
import pathlib

ROOT = pathlib.Path(__file__).parent.parent
CACHE = pathlib.Path(os.environ.get("MMER_TEST_CACHE", "~/.cache/mmer_jax/test-xla")).expanduser()
