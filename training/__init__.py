"""Training of Zero-1-to-3: view shards in, checkpoint folder out."""

import conf  # noqa: F401  # before torch, because it sets how idle OpenMP threads wait
