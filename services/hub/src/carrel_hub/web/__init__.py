"""The hub's pages: rendered here, usable without scripts, and closed to other origins."""
