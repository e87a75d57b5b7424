"""Carrel's proxy: the one public address."""

__version__ = "0.1.0"
