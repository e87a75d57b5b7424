"""Services beside the hub: their rows, settings, routes, and the REST API that names them."""
