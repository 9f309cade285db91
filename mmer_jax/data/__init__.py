"""Corpora, splits and missing patterns: everything between files and the training step."""

import os

# TensorFlow, where it is imported at all, greets with notices that are not for our users; they must
# be turned off before the import.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
