"""How far a run is in its data, so that it continues there, whatever was dropped and on however many devices."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor


@dataclass(frozen=True)
class StreamState:
    """`batches` have been trained on by all ranks together, and of each reader's stream `used` slots are behind it.

    A slot is a place in the endless stream that a reader is to read, whether or not its object could be read. Batch
    g of a run comes from reader g mod (number of readers), and is batch g // ranks of rank g mod ranks: nothing here
    depends on how many ranks there are, only on how many readers they have in all.
    """

    batches: int = 0
    used: tuple[int, ...] = ()

    def after(self, slots: Tensor, rank: int, ranks: int) -> Self:
        """Where a rank is that has trained on its next batch, the one whose pairs lie in these `slots`.

        It knows nothing of what the readers of other ranks have used meanwhile; `merged` joins them.
        """
        reader = (self.batches + rank) % len(self.used)
        used = (*self.used[:reader], int(slots[-1]) + 1, *self.used[reader + 1 :])
        return type(self)(self.batches + ranks, used)

    def among(self, readers: int, ranks: int) -> Self:
        """The same where the number of readers is the same, and else a place near it: each has used as much."""
        batches = self.batches - self.batches % ranks
        if len(self.used) == readers:
            return type(self)(batches, self.used)
        total = sum(self.used)
        return type(self)(batches, tuple((total + reader) // readers for reader in range(readers)))

    def as_dict(self) -> dict[str, Any]:
        return {"batches": self.batches, "used": list(self.used)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        return cls(int(fields["batches"]), tuple(map(int, fields["used"])))


def merged(parts: Iterable[StreamState]) -> StreamState:
    """What the ranks know together; each is right about its own readers and behind on the others'."""
    parts = list(parts)
    return StreamState(max(part.batches for part in parts), tuple(map(max, zip(*(p.used for p in parts), strict=True))))
