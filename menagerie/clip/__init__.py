"""The embedded CLIP: architecture and folder layout, the pool of pictures it learns from, training, and its exam."""
