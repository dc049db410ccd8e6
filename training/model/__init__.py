"""The view-conditioned diffusion model: architecture, objective, sampling, and checkpoint layouts."""
