"""Activations: extraction from an encoder, stores on disk, streams into training."""
