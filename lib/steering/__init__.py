"""Interventions on any encoder, forward passes from cached activations, LLaVA."""
