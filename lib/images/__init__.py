"""Pictures in, from anywhere: specs, sets, the data sets of others."""
