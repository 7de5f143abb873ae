"""Exact, fast training-free diffusion denoisers, to sample with and to compare with networks."""
