"""The dictionaries: model, config, selection of latents, objectives, training, ensembles."""
