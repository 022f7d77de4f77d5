"""ckpt-inspect: look at checkpoints, verify them, and tell what is in a file from somewhere else.

The tool knows no format of its own accord: it asks ckptfmt, and shows the answer. Folders, from the ground up: `output`
(how anything is shown), `sources` (what lies under a path), `views` (one way to show it), `commands` (one file each).
"""
