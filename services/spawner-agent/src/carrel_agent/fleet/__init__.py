"""This host as one of the hub's: joining, leaving, its certificate, its relay."""
