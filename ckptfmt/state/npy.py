"""The header of a .npy file. Layout: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html"""

from __future__ import annotations

import io


def npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """Return the header for row-major bytes of an element type of spec 9.2.

    Raises:
        UnsupportedTypeError: numpy has no such type.
    """
    import numpy as np

    from ckptfmt.state.numpy_dtypes import dtype_of
    from ckptfmt.state.places import root_place

    kind = dtype_of(dtype, root_place())
    buffer = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, description)
    return buffer.getvalue()
