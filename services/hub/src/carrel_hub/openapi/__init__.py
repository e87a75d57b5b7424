"""The REST API described for programs (OpenAPI 3.1): what each call takes, and all it may answer.

`operations` says it call by call, `schemas` names the shapes, `document` puts them together with
the routes there are. A test fails on a route that nothing is said of, and another one has all of it
tried against the hub.
"""
