"""Control groups: what a server may use, and which processes are its own, as the kernel says."""
