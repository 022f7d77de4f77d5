"""How sound checkpoints are broken at one layer; whatever covers that layer is sealed again.

Each `in_...` starts from the same sound checkpoint and returns its files with one change.
"""

from tests.conformance.vector_kit import Edits, Ref, Shard, Slot, Tensor, build, floats, stored_frame, whole

MODEL, METADATA, MANIFEST = "model-", "metadata-", "manifest.json"


def sound_parts():
    """The tree, tensors and shards from which bad checkpoints are made: two tensors, a tie and a number."""
    shard, rows = whole([("w", "float32", (4,), floats(1, 2, 3, 4)), ("b", "float32", (), floats(5))], ties={"tied": "w"})
    return {"model": {"w": Ref(0), "tied": Ref(0), "b": Ref(1)}, "epoch": 3}, rows, [shard]


def sound(**edits):
    """The sound checkpoint, with edits of its layers."""
    return build(*sound_parts(), edits=Edits(**edits))


def in_manifest(change):
    """Break the manifest's content."""
    return sound(manifest=lambda document: change(document) or document)


def in_text(old, new):
    """Break the manifest's text."""
    return sound(text=lambda text: replaced(text, old, new))


def in_content(change):
    """Break the metadata's content."""
    return sound(content=lambda content: change(content) or content)


def in_header(old, new):
    """Replace text in the shard's header without moving its data: padding takes the difference."""

    def edit(_, header):
        text = replaced(header[8:].rstrip(b" "), old, new)
        assert len(text) <= len(header) - 8, new
        return header[:8] + text.ljust(len(header) - 8)

    return sound(header=edit)


def in_file(start, change):
    """Change the bytes of one file and seal nothing; None removes it."""
    files = sound()
    name = next(name for name in files if name.startswith(start))
    changed = change(files.pop(name))
    return files if changed is None else files | {name: changed}


def member(*path, value):
    """Return a change that sets a member deep inside."""

    def change(document):
        _holder(document, path)[path[-1]] = value

    return change


def without(*path):
    """Return a change that removes a member deep inside."""

    def change(document):
        del _holder(document, path)[path[-1]]

    return change


def _holder(document, path):
    for step in path[:-1]:
        document = document[step]
    return document


def replaced(data, old, new):
    """Replace what must be there exactly once."""
    assert data.count(old) == 1, old
    return data.replace(old, new)


def flipped(data, position):
    """Flip one bit."""
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


def nested(value, levels):
    """Put a value into as many lists."""
    for _ in range(levels):
        value = [value]
    return value


def with_row(*, dtype="uint8", chunks=((0, 0),), slots=(((2, 2), b"abcd"),)):
    """A checkpoint of one tensor of shape (2, 2) over slots of these shapes and bytes."""
    shard = Shard("model", [Slot(f"t@{index}", "U8", shape, data) for index, (shape, data) in enumerate(slots)])
    row = Tensor("model.t", dtype, (2, 2), b"abcd", [list(chunk) for chunk in chunks])
    return build({"model": Ref(0)}, [row], [shard] if slots else [])


def with_stale_slot(**edits):
    """A checkpoint of one tensor in a shard that has a second slot, to which nothing refers."""
    shard = Shard("model", [Slot("w", "F32", (1,), floats(1)), Slot("stale", "U8", (4,), b"abcd")])
    return build({"model": {"w": Ref(0)}}, [Tensor("model.w", "float32", (1,), floats(1), [[0, 0]])], [shard], edits=Edits(**edits))


def with_encoded(stored, *, requires=("codec:zstd",), change=lambda content: None):
    """A checkpoint of one encoded tensor, the numbers 1 and 2, whose slot holds these bytes."""
    raw = floats(1, 2)
    row = Tensor("model.t", "float32", (2,), raw, [[0, 0]])
    shard = Shard("model", [Slot("t", "U8", (len(stored),), stored, raw)])
    return build({"model": Ref(0)}, [row], [shard], requires=requires, edits=Edits(content=lambda content: change(content) or content))


def encoded_floats(*values):
    """A frame that holds float32 values."""
    return stored_frame(floats(*values))
