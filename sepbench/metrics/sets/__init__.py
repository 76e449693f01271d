"""Distances between sets of images: what features are (``extractors.py``), what their statistics are (``frechet.py``, ``kernel.py``,
``inception_score.py``), and the metrics that join the two (``catalogue.py``)."""
