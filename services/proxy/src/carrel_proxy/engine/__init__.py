"""The data plane: asyncio protocols that move bytes as `carrel_proxy.core` decides."""
