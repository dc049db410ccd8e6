"""Keep the views of objects in memory, encoded and decoded, so that later epochs neither read nor decode them."""

from collections import OrderedDict
from collections.abc import Iterable

from training.data.view_pairs import Views


class ObjectCache:
    """The most recently used objects of one process, up to a number of bytes.

    Args:
        size: Maximum bytes of the encoded and decoded images.
    """

    def __init__(self, size: int) -> None:
        self._size, self._bytes = size, 0
        self._objects: OrderedDict[int, tuple[Views, int]] = OrderedDict()  # with the bytes counted for each

    def find(self, indices: Iterable[int]) -> dict[int, Views]:
        """Return the cached objects among some, given by their numbers in the run."""
        return {index: self._objects[index][0] for index in indices if index in self._objects}

    def use(self, index: int, views: Views) -> None:
        """Keep an object of which a pair was made, and remove others if the memory is full; latents are not kept."""
        if views.images is None:
            return
        _, counted = self._objects.pop(index, (None, 0))
        self._objects[index] = views, views.images.bytes
        self._bytes += views.images.bytes - counted
        while self._bytes > self._size:
            _, (oldest, counted) = self._objects.popitem(last=False)
            self._bytes -= counted
            if oldest.images:
                oldest.images.forget()
