"""Sharing servers: with users and groups, and by codes that whoever has one may exchange."""
