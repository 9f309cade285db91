"""Importers of published feature layouts into the feature directory of this project."""
