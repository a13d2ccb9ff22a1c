"""Experiment loops: pre-training the small diffusion model, and VPD's referring segmentation on
top of it."""
