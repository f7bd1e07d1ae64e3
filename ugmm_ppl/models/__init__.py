"""Whole models: prior, network and likelihood in one description, for either backend."""
