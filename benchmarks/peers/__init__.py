"""The libraries that are measured: one file each, with the interface of `peers.interface`, under the name of its file."""
