"""TFDS builders: the only code that writes TFRecords."""
