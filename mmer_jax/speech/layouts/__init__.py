"""Importers of published speech corpora into a folder with utterances.csv."""
