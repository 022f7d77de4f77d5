"""A training that has much to compress behind it: `python compress_work.py RUN`. Prints a line when a step was compressed, and waits."""

import sys
import time

import numpy as np

import ckptfmt

STEPS = 8


def state_of(step):
    return {"model": {"w": np.random.default_rng(step).standard_normal((1500, 1000)).astype("f4")}, "step": step}


if __name__ == "__main__":
    run = ckptfmt.Run(sys.argv[1], durable=False, compress_older_than=0.01)
    for step in range(STEPS):
        run.save(step, state_of(step))
    while not run.compression_status().done:
        time.sleep(0.01)
    print("compressing", flush=True)
    if sys.stdin.readline() == "close\n":
        begin = time.monotonic()
        run.close()
        print(time.monotonic() - begin, flush=True)
