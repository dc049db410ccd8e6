"""Record the progress of a run in its data, to resume on any number of devices and with any dropped objects."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor


@dataclass(frozen=True)
class StreamState:
    """Progress of all ranks together.

    A slot is a place in the endless stream of a reader, whether or not its object is readable. Batch g of a run comes
    from reader g mod readers and is batch g // ranks of rank g mod ranks. The state thus depends on the total number
    of readers, and not on the number of ranks.

    Attributes:
        batches: Batches that all ranks together have trained on.
        used: For each reader, the slots that have been used.
    """

    batches: int = 0
    used: tuple[int, ...] = ()

    def after(self, slots: Tensor, rank: int, ranks: int) -> Self:
        """Return the state after a rank trained on its next batch.

        The result lacks what readers of other ranks have used meanwhile; `merged` combines the ranks.

        Args:
            slots: Slots `[B]` of the batch.
            rank: The rank that trained on it.
            ranks: Number of ranks.
        """
        reader = (self.batches + rank) % len(self.used)
        used = (*self.used[:reader], int(slots[-1]) + 1, *self.used[reader + 1 :])
        return type(self)(self.batches + ranks, used)

    def among(self, readers: int, ranks: int) -> Self:
        """Return the state for another number of readers: unchanged if it is equal, else with the slots shared equally.

        Args:
            readers: Number of readers of all ranks.
            ranks: Number of ranks.
        """
        batches = self.batches - self.batches % ranks
        if len(self.used) == readers:
            return type(self)(batches, self.used)
        total = sum(self.used)
        return type(self)(batches, tuple((total + reader) // readers for reader in range(readers)))

    def as_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"batches": self.batches, "used": list(self.used)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Return the state from a checkpoint."""
        return cls(int(fields["batches"]), tuple(map(int, fields["used"])))


def merged(states: Iterable[StreamState]) -> StreamState:
    """Combine the states of all ranks, each of which is current for its own readers and behind for the others'."""
    states = list(states)
    used = zip(*(state.used for state in states), strict=True)
    return StreamState(max(state.batches for state in states), tuple(map(max, used)))
