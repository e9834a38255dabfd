"""Files in memory, of which the ones asked for last are kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock


class ByteCache:
    """Files by key, up to a number of bytes; any thread may use it.

    Examples:
        >>> cache = ByteCache(limit=10)
        >>> cache.put("a", b"123456"), cache.put("b", b"123456")
        (None, None)
        >>> cache.get("a"), cache.get("b")
        (None, b'123456')
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._files: OrderedDict[Hashable, bytes] = OrderedDict()
        self._size = 0
        self._lock = Lock()

    def get(self, key: Hashable) -> bytes | None:
        """A file; None for one that is not kept."""
        with self._lock:
            if key in self._files:
                self._files.move_to_end(key)
            return self._files.get(key)

    def put(self, key: Hashable, file: bytes) -> None:
        """Keep a file, in the place of those that were not asked for longest."""
        with self._lock:
            self._size += len(file) - len(self._files.pop(key, b""))
            self._files[key] = file
            while self._size > self._limit:
                _, old = self._files.popitem(last=False)
                self._size -= len(old)
