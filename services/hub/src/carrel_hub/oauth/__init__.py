"""The hub as OAuth provider (RFC 6749): how a browser that is signed in opens a server's door."""
