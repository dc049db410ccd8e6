"""Scores of meshes: folders of predicted meshes against a folder of true ones."""
