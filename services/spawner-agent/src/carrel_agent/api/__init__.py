"""The agent's HTTP API; its caller is the hub."""
