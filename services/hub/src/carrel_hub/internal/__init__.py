"""What agents, proxies and the console call. `ServiceGate` stands in front of all of it."""
