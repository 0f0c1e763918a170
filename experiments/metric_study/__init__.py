"""Which metric of a dictionary can be trusted: dictionaries of known quality, their metrics, and the truth."""
