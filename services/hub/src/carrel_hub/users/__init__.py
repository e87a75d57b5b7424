"""People: their rows, and the REST API that names them."""
