"""Score folders of predicted meshes against a folder of true meshes."""
