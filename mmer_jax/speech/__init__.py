"""Accented speech: corpora, an L1 phone recogniser, goodness of pronunciation, accent intensity."""
