"""What the hub tells this proxy, and what this proxy tells the hub."""
