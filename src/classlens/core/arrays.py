"""The type of NumPy arrays whose shape a docstring gives."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
