"""Cost of steering in a profile: forward passes of interventions, and answers of a LLaVA.

From the sizes of the chapters' loops, to a factor of about two: passes begin at the steered block, for blocks before it
run once (steering/cached_forward.py).
"""

from book.tools.sizes import VisionTransformer

KINDS = 3  # of what is pushed in chapter 9: features, neurons, random directions
TASKS, RULES = 3, 16  # of chapter 10: tasks; rankings at a site: of features, of encoder directions, chance, neurons
METHODS = 6  # methods that chapter 7 compares
LLAVA_WEIGHTS = {"tiny": 2.2e6, "hf:llava-hf/llava-1.5-7b-hf": 6.7e9, "hf:llava-hf/llava-1.5-13b-hf": 13e9}
ASSUMED_WEIGHTS = 6.7e9  # of another LLaVA
PROMPT = 620  # tokens of a picture and a question


def passes_flops(size: VisionTransformer, values: dict) -> float:
    """FLOPs of the passes that push features (chapter 9) or suppress them (chapter 10)."""
    sites, strengths = values.get("sites", []), len(values.get("strengths", []))
    if "own_multiples" in values:
        pictures = KINDS * values["n_pictures"]
        at_last = pictures * values["n_features"] * (strengths + len(values["own_multiples"]) + 1)
        elsewhere = sum(_rest(size, site) for site in sites[:-1]) * pictures * values["n_elsewhere"] * strengths
        return at_last * _rest(size, sites[-1]) + elsewhere
    if "n_candidates" in values:
        tried = RULES * len(values["counts"]) * strengths * values["sizes"][0]
        candidates = 2 * values["n_candidates"] * values["steer_pictures"]
        panel = 2 ** values["panel_features"] * values["panel_pictures"] * size.flops(["proj"])
        return TASKS * (sum(_rest(size, site) for site in sites) * (tried + candidates) + panel)
    return 0.0


def _rest(size: VisionTransformer, site: str) -> float:
    """FLOPs of one picture's pass from a site to the embedding."""
    return size.flops(["proj"]) - size.flops([site]) + 2 * size.width * size.embed


def answers_flops(values: dict) -> float:
    """FLOPs of the answers of chapters 6, 6a and 7; 0 for others."""
    if "llava" not in values:
        return 0.0
    weights = LLAVA_WEIGHTS.get(values["llava"], ASSUMED_WEIGHTS)
    return 2 * weights * sum(number * (PROMPT + length) for number, length in _answers(values))


def _answers(values: dict) -> list[tuple[float, int]]:
    """(number of answers, most tokens of each) pairs."""
    strengths = len(values.get("strengths", []))
    if "stored" in values:
        pictures, features, prompts = values["stored"]
        shown = pictures * prompts * (1 + features * len(values["alphas"])) + 4 * values["n_features"]
        return [(shown, values["max_new_tokens"])]
    if "n_selection_concepts" in values:
        white = values["n_features"] + values["n_selection"] * strengths
        on_pictures = values["n_pictures"] * values["features_on_pictures"]
        concepts = (values["n_concepts"] + values["n_selection_concepts"] * 2 * strengths) * 4
        return [(METHODS * (white + on_pictures), values["answer_tokens"]), (METHODS * concepts, values["open_tokens"])]
    shown = 1 + values["n_pictures"]
    return [(shown * (strengths + 2) * 8, values["answer_tokens"]), (3 * (4 * strengths + 16), values["open_tokens"])]
