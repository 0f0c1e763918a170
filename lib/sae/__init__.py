"""Sparse autoencoders: model, config, selection of latents, objectives, training."""
