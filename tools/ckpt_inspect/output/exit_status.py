"""What the exit status of the tool says. A status that is not listed here means failure."""

FINE = 0
FOUND_SOMETHING = 1
COULD_NOT_RUN = 2
NOT_FOUND = 10
LOCKED = 11
INTERRUPTED = 130
# What a shell reports for a program that a closed pipe ended; `ckpt-inspect PATH | head` is no error.
PIPE_CLOSED = 141
