"""The figures of the chapters, a module a chapter: each function draws one figure from what a notebook has measured."""
