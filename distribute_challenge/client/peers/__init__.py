"""The server and the workers, as a client calls them."""
