"""Tables of papers that chapters print beside their own figures."""

import pandas as pd

BOUNDS = ("true names", "shuffled names")

STEERING_SCORES = pd.DataFrame(
    {
        "steered": [0.259, 0.263],
        "not steered": [0.212, 0.211],
        "true names": [0.283, 0.283],
        "shuffled names": [0.185, 0.185],
    },
    index=["white picture, 1,000 features", "1,000 pictures, 10 features"],
)
"""arXiv 2504.02821, Table 3: LLaVA-1.5-7B, text and pictures by CLIP ViT-B/32."""

STEERING_RATES = pd.DataFrame(
    {"paper: SAE": [48.7, 85.8, 42.4, 64.4, 81.4, 52.5], "paper: DiffMean": [53.1, 66.2, 35.8, 64.0, 38.7, 33.3]},
    index=pd.MultiIndex.from_tuples(
        [("insertion", part) for part in ("named", "prompt followed", "both")]
        + [("suppression", part) for part in ("gone", "rest kept", "both")]
    ),
)
"""arXiv 2504.02821 v3, Table 2: per cent of LLaVA's answers."""

USER_STUDY = pd.DataFrame(
    {
        "pairs": [177, 139, 126, 138, 121, 90, 105, 63, 41],
        "agreement": [0.56, 0.66, 0.71, 0.81, 0.85, 0.93, 0.94, 0.96, 1.00],
    }
)
"""arXiv 2504.02821 v3, appendix C, MS(DINO): by the difference of two scores, in tenths."""
