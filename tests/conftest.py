"""What every test run shares: one thread per worker, and hypothesis without a clock.

Fixtures of one area live beside its tests, not here.
"""

import os

# Set before anything imports numpy or torch: the workers of one run share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings

settings.register_profile("test", deadline=None, derandomize=True, print_blob=True)
settings.register_profile("proof", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile("test")


def pytest_configure(config):
    if "slow" in config.option.markexpr.removeprefix("not slow"):
        settings.load_profile("proof")
