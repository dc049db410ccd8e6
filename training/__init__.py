"""Training of Zero-1-to-3: view shards in, checkpoint folder out."""
