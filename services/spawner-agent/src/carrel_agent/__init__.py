"""Carrel's spawner agent: runs notebook servers on one host."""

__version__ = "0.1.0"
