"""Many workers behind one set of listeners, and no moment without them.

`launch` reads settings and binds listeners, then becomes `parent`, which starts `worker`s and
restarts those that die. What the workers say to each other goes through the parent (`crew`).
"""
