"""Write the page of an evaluation."""
