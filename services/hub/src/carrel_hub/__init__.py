"""Carrel's hub: who may sign in, what should run, and where to send whom."""

__version__ = "0.1.0"

JUPYTERHUB_API_VERSION = "6.1.1"
"""The version of JupyterHub whose protocols the hub speaks; its clients go by the major number."""
