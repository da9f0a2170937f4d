"""The server process: the busy list, the line of clients, the supervisor of the workers."""
