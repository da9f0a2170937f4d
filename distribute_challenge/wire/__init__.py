"""The corridor: what client, server and worker share. It knows none of them."""
