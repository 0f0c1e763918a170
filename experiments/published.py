"""Tables of papers that chapters compare their results with."""

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
"""arXiv 2504.02821 v3, Table 2: percent of LLaVA's answers."""

USER_STUDY = pd.DataFrame(
    {
        "pairs": [177, 139, 126, 138, 121, 90, 105, 63, 41],
        "agreement": [0.56, 0.66, 0.71, 0.81, 0.85, 0.93, 0.94, 0.96, 1.00],
    }
)
"""arXiv 2504.02821 v3, appendix C, MS(DINO): by the difference of two scores, in tenths."""

UNIQUENESS = {
    "latents": 12_288, "excluded": 10, "pairs": 75_368_503, "J > 0": 16_000, "J > 0.5": 20,
    "n_top": 16, "pictures": 1_281_167,
}  # fmt: skip
"""arXiv 2504.02821, appendix G: pairs of features, and of them those whose top pictures have such a Jaccard index."""

RELEASED_L0 = pd.DataFrame(
    {
        "CLS": [40.46, 27.39, 10.11, 77.9, 156.7, 228.5, 321.3, 494.3, 791.3, 1053, 1010, 1189],
        "mean of all tokens": [
            1110.9, 1508.4, 717.84, 2053.9, 2068.3, 1953.8, 1717.5, 1688.4, 1570.8, 1533.5, 1292.6, 1405,
        ],
    }
)  # fmt: skip
"""Released with arXiv 2504.08729: L0 by layer, ReLU, all tokens, resid_post of ViT-B/32 (layer 2 at another price)."""

RELEASED_ALIVE = {
    "relu": [4.33, 2.82, 2.54, 4.49, 15.75, 16.8, 29.46, 51.68, 82.07, 93.68, 99.98, 99.996],
    "topk": [46.8, 4.86, 5.5, 5.21, 6.81, 21.89, 28.81, 65.84, 93.75, 98.9, 94.55, 97.99],
}
"""Released with arXiv 2504.08729: percent of the latents that are alive by layer, CLS, resid_post of ViT-B/32."""

HIERARCHY = pd.DataFrame(
    {
        "prefix end": [3, 16, 69, 359, 1536],
        "LCA depth (rounded)": [3.33, 2.92, 3.85, 3.86, 4.06],
        "score, DINOv2: mean": [0.06, 0.08, 0.09, 0.16, 0.24],
        "score, CLIP B/32: mean": [0.67, 0.68, 0.70, 0.73, 0.74],
    }
).rename_axis("level")
"""arXiv 2504.02821 v3, Table A8: iNaturalist, Matryoshka of width 1536 on CLIP's joint embedding, by level."""
