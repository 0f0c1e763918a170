"""Interventions on any encoder, forward passes from cached activations, LLaVA (arXiv 2504.02821, section 4.4).

Import its public names from `lib`: `from lib import Intervention, Neurons, Directions, load_llava, Llava`.
"""
