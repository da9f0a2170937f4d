"""What a call and its outcome are, and how one is run. Knows no sockets."""
