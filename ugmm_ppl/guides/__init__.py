"""Variational families over the parameters of a model."""
