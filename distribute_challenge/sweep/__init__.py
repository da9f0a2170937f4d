"""The benchmark: servers of 1 to W workers, each called by 1 to C clients, all as processes of their own."""
