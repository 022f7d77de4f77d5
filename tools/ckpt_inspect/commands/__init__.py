"""One file for each command; the registry imports them when they are asked for."""
