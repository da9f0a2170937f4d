"""What is the same for all engines: tasks, their futures, maps, and what an engine has to do."""
