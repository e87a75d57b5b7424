"""What Carrel's services say to each other: pydantic models and nothing else.

Every internal call names the wire version it speaks (`WIRE_HEADER`). A service answers its own
version and the one before it, and refuses a newer one by name, so that a rolling upgrade fails
loudly instead of strangely. Requests forbid unknown fields; replies ignore them.
"""

WIRE_VERSION = 1
OLDEST_WIRE_VERSION = 1
WIRE_HEADER = "Carrel-Wire"
REQUEST_ID_HEADER = "X-Request-Id"
