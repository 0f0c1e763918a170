"""The embedded CLIP with TopK MLPs: its layer, training and card."""
