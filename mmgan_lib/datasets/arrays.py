"""An unpickler of NumPy arrays, which runs nothing else that a pickle may hold."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import ClassVar

import numpy as np


class ArrayUnpickler(pickle.Unpickler):
    """An unpickler of NumPy arrays, which refuses with UnpicklingError a pickle that asks for anything else.

    A pickle is a program: it may call whatever ``find_class`` hands out.
    """

    ADMITTED: ClassVar = {
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Callable:
        """Returns one of NumPy's three array constructors."""
        if (module, name) not in self.ADMITTED:
            raise pickle.UnpicklingError(f"the pickle asks for {module}.{name}; expected arrays alone.")
        return self.ADMITTED[module, name]
