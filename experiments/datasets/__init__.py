"""Public data sets, as kinds of image specs: each registers its source by an entry point (`lib.registry`)."""
