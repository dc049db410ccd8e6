"""The layout of the renders that the authors of Zero-1-to-3 released: read, written, and converted to view shards."""
