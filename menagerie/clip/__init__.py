"""The embedded CLIP: architecture, training pictures, training, exam (evaluation) and model card."""
