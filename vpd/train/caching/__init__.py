"""What frozen networks compute, once for all runs: latents, outputs of a backbone, what an image
encoder sees, in stores on disk; and rows made ahead by threads."""
