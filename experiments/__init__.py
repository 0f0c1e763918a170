"""What single chapters need beyond lib: protocols, sweeps, judges, claims, where a profile keeps things."""
