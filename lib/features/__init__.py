"""Feature tables: codes, top images and patch maps of an SAE's features on a set of images."""
