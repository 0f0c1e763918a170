"""Image sets: from specs, folders, pictures in memory and registered data sets."""
