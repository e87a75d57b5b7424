"""Carrel's hub: who may sign in, what should run, and where to send whom."""

__version__ = "0.1.0"
