"""Pipeline from 3D objects to WebDataset shards of views: render, pack, inspect, verify and export."""
