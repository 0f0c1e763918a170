"""The embedded eye: an image-only encoder that judges features, trained apart from the embedded CLIP."""
