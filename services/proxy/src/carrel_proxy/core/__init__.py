"""What the proxy decides: values in; values or errors out. Nothing here does I/O."""
