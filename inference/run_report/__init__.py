"""Write the HTML page of a training run."""
