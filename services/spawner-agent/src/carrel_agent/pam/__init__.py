"""carrel-pam: checks passwords for the hub, each in a child that can be killed."""
