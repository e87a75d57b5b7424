"""The REST API for tokens of users."""
