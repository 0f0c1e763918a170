"""Figures of the chapters, a module a chapter; each function draws one figure from a notebook's results."""
