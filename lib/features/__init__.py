"""What features do on a set of pictures."""
