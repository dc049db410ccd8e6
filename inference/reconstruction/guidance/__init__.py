"""Guides: models that draw or denoise views of the object from any camera."""
