"""Who may pass: verdicts of the hub, kept for a while, and the sign-in to a server."""
