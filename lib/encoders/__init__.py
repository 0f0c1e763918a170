"""Encoders: models of open_clip and Hugging Face, and any `nn.Module`, with named sites."""
