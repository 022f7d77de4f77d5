"""How a file system says that it cannot do something at all, as against failing at it.

These error numbers select a fallback; every other one is an error of the operation and is raised. They live
in one place so that the local disk and the memory disk agree on them.
"""

from __future__ import annotations

import errno

# EACCES and EPERM: hard-link restrictions of the kernel and file systems without links (FAT, FUSE).
LINK_REFUSALS = frozenset({errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})

# EBADF: network file systems that want a lock descriptor open for writing, which a directory never is.
LOCK_REFUSALS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF})

DIRECTORY_SYNC_REFUSALS = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP})

RESERVE_REFUSALS = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV})

# What a file system says to a transfer past the page cache that it does not offer.
DIRECT_REFUSALS = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
