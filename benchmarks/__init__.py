"""ckptfmt beside other libraries and beside the machine's own limits. Start with `python -m benchmarks.run`."""
