"""Backups: all rows and keys of a hub in one file, for either kind of database."""
