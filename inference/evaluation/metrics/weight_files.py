"""Find and read the weights of metrics."""

from conf.options import UserError


class MissingWeights(UserError):
    """Weights are neither given nor in a cache, and cannot be downloaded, or a library is not installed."""
