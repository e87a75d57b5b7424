"""Compute hosts: how they join, what is known of them, how they are emptied and taken away."""
