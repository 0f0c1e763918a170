"""Chapter 10: tasks with spurious features, and what their suppression costs."""
