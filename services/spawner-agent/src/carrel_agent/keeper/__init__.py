"""The keeper: parent of agent, zygote and servers, and the client the agent speaks to it with.

`main` and what it imports run without site-packages and import the standard library alone.
"""
