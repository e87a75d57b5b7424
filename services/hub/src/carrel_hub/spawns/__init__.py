"""Notebook servers: what is wanted, what is known, and the steps from one to the other."""
