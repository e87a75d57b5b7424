"""What every Jupyter server that Carrel starts is given.

`identity` and `serving` are imported by a forked child. An executed server, whose Python knows
nothing of Carrel and may be older, reads `jupyter_server_config.py` because this directory is on
its JUPYTER_CONFIG_PATH; that file loads the two by path. So they import jupyter_server and the
standard library only, not even each other, and are written for Python 3.9.
"""
