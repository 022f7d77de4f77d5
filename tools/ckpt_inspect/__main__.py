"""`python -m ckpt_inspect` is `ckpt-inspect`."""

import sys

from ckpt_inspect.main import main

sys.exit(main())
