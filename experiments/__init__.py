"""What single chapters need beyond lib: metrics, kinds of SAEs, protocols, judges, plots, folders of artifacts."""
