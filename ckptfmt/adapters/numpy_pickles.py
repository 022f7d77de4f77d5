"""Arrays, scalars and element types of numpy as pickles describe them, made from their bytes. Arrays of objects are refused."""

from __future__ import annotations

from typing import Any

from ckptfmt.adapters.pickle_reader import Builder, Instance
from ckptfmt.adapters.pickle_values import Finisher

_OLD = ("numpy.core", "numpy._core")


def _kept(name: str) -> Builder:
    return Builder(lambda *arguments: Instance(name, arguments))


NUMPY_NAMES: dict[str, Any] = {
    "numpy.ndarray": "numpy.ndarray",
    "numpy.dtype": _kept("numpy.dtype"),
    **{f"{core}.multiarray._reconstruct": _kept("numpy.ndarray") for core in _OLD},
    **{f"{core}.multiarray.scalar": _kept("numpy.scalar") for core in _OLD},
    **{f"{core}.numeric._frombuffer": _kept("numpy.frombuffer") for core in _OLD},
}


def _dtype(made: Instance) -> Any:
    import numpy as np

    text: Any = made.arguments[0]
    state: Any = made.state or (3, "|", None, None, None, -1, -1, 0)
    if state[2] is not None:
        inner, shape = state[2]
        return np.dtype((inner, tuple(shape)))
    if state[3]:
        fields = [state[4][name] for name in state[3]]
        return np.dtype(
            {
                "names": list(state[3]),
                "formats": [field[0] for field in fields],
                "offsets": [field[1] for field in fields],
                "itemsize": state[5],
            }
        )
    dtype = np.dtype(text)
    if dtype.kind in "mM" and len(state) > 8 and state[8]:
        unit, count, *_ = state[8][1]
        unit = unit.decode("ascii") if isinstance(unit, bytes) else unit
        dtype = np.dtype(f"{dtype.kind}8[{'' if count == 1 else count}{unit}]")
    if dtype.hasobject:
        raise TypeError("an array of objects is no plain data")
    return dtype.newbyteorder(state[1]) if state[1] in "<>" else dtype


def _bytes_of(data: Any) -> bytes:
    return data.encode("latin-1") if isinstance(data, str) else bytes(data)


def _array(made: Instance) -> Any:
    import numpy as np

    _, shape, dtype, is_fortran, data = made.state
    return np.frombuffer(bytearray(_bytes_of(data)), dtype).reshape(shape, order="F" if is_fortran else "C")


def _frombuffer(made: Instance) -> Any:
    import numpy as np

    data, dtype, shape, order = made.arguments
    return np.frombuffer(bytearray(_bytes_of(data)), dtype).reshape(shape, order=order)


def _scalar(made: Instance) -> Any:
    import numpy as np

    dtype, data = made.arguments
    return np.frombuffer(_bytes_of(data), dtype, count=1)[0]


NUMPY_FINISHERS: dict[str, Finisher] = {
    "numpy.dtype": _dtype,
    "numpy.ndarray": _array,
    "numpy.frombuffer": _frombuffer,
    "numpy.scalar": _scalar,
}
