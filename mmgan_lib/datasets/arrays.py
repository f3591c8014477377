"""Reading a pickle of NumPy arrays without running what else it may hold."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import ClassVar

import numpy as np


class ArrayUnpickler(pickle.Unpickler):
    """Reads a pickle of NumPy arrays, and refuses with UnpicklingError one that asks for anything else.

    A pickle is a program: it may call whatever ``find_class`` hands out.
    """

    ADMITTED: ClassVar = {
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Callable:
        """One of NumPy's three array constructors."""
        if (module, name) not in self.ADMITTED:
            raise pickle.UnpicklingError(f"the pickle asks for {module}.{name}; expected arrays alone.")
        return self.ADMITTED[module, name]
