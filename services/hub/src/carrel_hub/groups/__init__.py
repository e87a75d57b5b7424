"""Groups of users: who is in them, and the REST API that names them."""
