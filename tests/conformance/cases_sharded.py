"""Sound checkpoints whose tensors are stored in parts, as several processes write them. Spec 5.1, 9.3."""

from tests.conformance.vector_kit import Ref, Shard, Slot, Tensor, floats


def chunked():
    """Tensors in several chunks, in several shards, in no order, some of them in a pattern that no straight cut separates."""
    grid = [floats(0, 1, 4, 5), floats(2, 3, 6, 7), floats(8, 9, 12, 13), floats(10, 11, 14, 15)]
    wheel = {((0, 0), (1, 2)): b"ab", ((0, 2), (2, 1)): b"cf", ((2, 1), (1, 2)): b"hi", ((1, 0), (2, 1)): b"dg", ((1, 1), (1, 1)): b"e"}
    first = [Slot(f"grid@{index}", "F32", (2, 2), grid[index]) for index in (3, 0)]
    second = [Slot(f"grid@{index}", "F32", (2, 2), grid[index]) for index in (1, 2)]
    second += [Slot(f"wheel@{index}", "U8", shape, data) for index, ((_, shape), data) in enumerate(wheel.items())]
    places = [[0, 1, [0, 0], [2, 2]], [1, 0, [0, 2], [2, 2]], [1, 1, [2, 0], [2, 2]], [0, 0, [2, 2], [2, 2]]]
    wheel_places = [[1, 2 + index, list(offset), list(shape)] for index, (offset, shape) in enumerate(wheel)]
    rows = [
        Tensor("model.grid", "float32", (4, 4), floats(*range(16)), places),
        Tensor("model.wheel", "uint8", (3, 3), b"abcdefghi", wheel_places),
    ]
    shards = [Shard("model", first), Shard("model", second, number=2)]
    return {"model": {"grid": Ref(0), "wheel": Ref(1)}}, rows, shards


def by_ranks():
    """What three processes wrote together: uneven parts, a tensor that one wrote for all, one in two parts only, one without elements."""
    weight = [floats(0, 1, 2, 3), floats(4, 5, 6, 7), floats(8, 9)]
    momentum = [floats(10, 20), floats(30)]
    shards = [
        Shard("model", [Slot("w@0,0", "F32", (2, 2), weight[0])]),
        Shard("optimizer", [Slot("0.momentum@0", "F32", (2,), momentum[0])]),
        Shard("model", [Slot("w@2,0", "F32", (2, 2), weight[1])], number=2),
        Shard("optimizer", [Slot("0.momentum@2", "F32", (1,), momentum[1]), Slot("0.step", "F32", (), floats(7))], number=2),
        Shard("model", [Slot("w@4,0", "F32", (1, 2), weight[2])], number=3),
    ]
    rows = [
        Tensor("model.w", "float32", (5, 2), b"".join(weight), [[0, 0, [0, 0], [2, 2]], [2, 0, [2, 0], [2, 2]], [4, 0, [4, 0], [1, 2]]]),
        Tensor("model.empty", "float32", (0, 2), b"", []),
        Tensor("optimizer.0.momentum", "float32", (3,), b"".join(momentum), [[1, 0, [0], [2]], [3, 0, [2], [1]]]),
        Tensor("optimizer.0.step", "float32", (), floats(7), [[3, 1]]),
    ]
    tree = {"model": {"w": Ref(0), "empty": Ref(1)}, "optimizer": {"$dict": [0, {"momentum": Ref(2), "step": Ref(3)}]}, "epoch": 3}
    return tree, rows, shards
