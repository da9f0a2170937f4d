"""What runs in the server process: the busy list, the line of clients, the workers' keepers."""
