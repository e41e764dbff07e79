"""PostgreSQL and files: everything that outlives a process."""
