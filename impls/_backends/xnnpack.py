"""XNNPACK's operators over rows of float32, by the C interface of its releases up to 2022, which Debian and Ubuntu carry:

xnn_create_NAME_nc_f32(n, stride of x, stride of y, numbers, flags, &operator)
xnn_setup_NAME_nc_f32(operator, rows, x, y, thread pool)
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from functools import cache

import numpy as np

LIBRARY = "libXNNPACK.so.0"
READS_BEYOND = 16  # bytes after a row that XNNPACK may read


@cache
def unavailable(name: str) -> str | None:
    """Why its operator ``name`` can't run here, in words."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        return f"{LIBRARY} is not installed (Debian and Ubuntu: libxnnpack0)"
    if not hasattr(library, f"xnn_setup_{name}_nc_f32") or hasattr(library, f"xnn_reshape_{name}_nc_f32"):
        return f"{LIBRARY} has another {name} interface than that of 2022"
    return None


@cache
def started() -> ctypes.CDLL:
    library = ctypes.CDLL(LIBRARY)
    library.xnn_run_operator.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    library.xnn_delete_operator.argtypes = [ctypes.c_void_p]
    library.xnn_initialize.argtypes = [ctypes.c_void_p]
    succeed("xnn_initialize", library.xnn_initialize(None))
    return library


def succeed(function: str, status: int) -> None:
    if status:
        raise RuntimeError(f"{function} failed with status {status}")


def row_stride(name: str, array: np.ndarray) -> int:
    """Elements from a row to the next. Raises ``ValueError`` for rows that XNNPACK can't address."""
    n = array.shape[-1]
    if array.strides[-1] != array.itemsize and n > 1:
        raise ValueError(f"{name} has strides {array.strides}: XNNPACK needs adjacent elements in a row")
    if array.ndim == 1:
        return n
    stride = array.strides[-2] // array.itemsize
    expected = tuple(stride * array.itemsize * int(np.prod(array.shape[axis + 1 : -1])) for axis in range(array.ndim - 1))
    if array.size and (stride < n or array.strides[:-1] != expected):
        raise ValueError(f"{name} has strides {array.strides}: XNNPACK needs rows at one distance of at least {n} elements")
    return max(stride, n)


def by_rows(name: str, x: np.ndarray, y: np.ndarray, *numbers: float) -> Callable[[], None]:
    """A callable that computes y of x with the operator ``name``, which takes these numbers. Raises ``ValueError`` for arrays
    that XNNPACK can't read."""
    n = x.shape[-1]
    rows = x.size // n if n else 0
    if not rows:
        return lambda: None
    strides = row_stride("x", x), row_stride("y", y)
    last = x.ctypes.data + ((rows - 1) * strides[0] + n) * x.itemsize
    if n * x.itemsize % READS_BEYOND and -last % 4096 < READS_BEYOND:
        raise ValueError(f"x ends at a page's end, and XNNPACK reads up to {READS_BEYOND} bytes beyond a row")
    library = started()
    size, pointer, flags = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_uint32
    create, setup = getattr(library, f"xnn_create_{name}_nc_f32"), getattr(library, f"xnn_setup_{name}_nc_f32")
    create.argtypes = [size, size, size, *[ctypes.c_float] * len(numbers), flags, ctypes.POINTER(pointer)]
    setup.argtypes = [pointer, size, pointer, pointer, pointer]
    handle = pointer()
    succeed(create.__name__, create(n, *strides, *numbers, 0, ctypes.byref(handle)))
    succeed(setup.__name__, setup(handle, rows, x.ctypes.data, y.ctypes.data, None))
    execute, arguments = library.xnn_run_operator, (handle, None)

    def run() -> None:
        execute(*arguments)

    run.__dict__["keeps"] = x, y  # XNNPACK has their addresses only
    weakref.finalize(run, library.xnn_delete_operator, handle)
    return run
