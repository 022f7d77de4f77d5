"""One file or a few for each framework: what its objects are made of, in the words of this format. Frameworks are imported in functions."""
