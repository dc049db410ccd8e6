"""Score Jacobian chaining (arXiv 2212.00774) with the posed model, as in section 3.3 of Zero-1-to-3."""
