"""Extraction: reader, writer, store, stream."""
