"""Models in: open_clip, Hugging Face, any `nn.Module`."""
