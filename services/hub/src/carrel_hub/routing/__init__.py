"""What the proxies' tables should hold, the numbered log of changes, and the push to each proxy."""
