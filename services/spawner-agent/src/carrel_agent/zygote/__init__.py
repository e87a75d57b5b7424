"""The fork server: JupyterLab imported once, a server for each request.

It holds no secret, runs one thread, and never makes anything of Jupyter's itself: applications,
loops and log handlers come to life in its children only. What it knows of a server is a descriptor.
"""
