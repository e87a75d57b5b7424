"""A drop-in for configurable-http-proxy: its command line, its REST API, its rules of routing."""
