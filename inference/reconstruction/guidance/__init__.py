"""Guide a reconstruction by models that sample or denoise views of the object from any camera."""
