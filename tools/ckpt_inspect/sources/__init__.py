"""What lies under a path, read with as little I/O as its description needs."""
