"""What the Carrel services share: what crosses a wire, and what two of them need."""

__version__ = "0.1.0"
