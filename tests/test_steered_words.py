"""The steering score of dictionaries: against answers asked one by one, and on planted answers and empty ones."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import cosine_similarity, one_hot

from experiments.metric_study.steered_words import GAIN, LEVEL, SteeredWords, evenly_spaced, scorer_of, word_scores
from lib import SAEConfig, load_encoder, load_images
from lib.sae.model import SAE
from steering.interventions import Intervention

SITE, D, F = "3.resid_post", 192, 24
PROMPT = "What is shown in this image? Use exactly one word!"


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("tiny", device="cpu")


@pytest.fixture(scope="module")
def images():
    return load_images("menagerie:val[:12]")


@pytest.fixture(scope="module")
def own(encoder, images):
    return encoder.embed_images(encoder.pixels(list(images)))


@pytest.fixture
def sae():
    torch.manual_seed(0)
    return SAE(SAEConfig(kind="topk", width=F, k=4), D).requires_grad_(False)


@pytest.fixture
def codes():
    """Of 12 pictures with 5 patches; feature j is active in picture j % 12 alone, features from 20 on nowhere."""
    found = torch.zeros(12, 5, F)
    for j in range(20):
        found[j % 12, j % 5, j] = 1.0 + j
    return found


class Answers:
    """A LLaVA that says what `of` makes of each push: the embedding of picture number `of(j)`, unsteered that of 11."""

    def __init__(self, of):
        self.pictures, self.of, self.pushes = torch.eye(12), of, []

    def answers(self, pictures, pushes):
        self.pushes += pushes
        said = [11 if push is None else self.of(*push.features) for push in pushes]
        return one_hot(torch.tensor(said), 12).float().expand(len(pictures), -1, -1)


def asked(scorer, **settings):
    return SteeredWords(scorer, range(3), SITE, **({"features": 5, "strength": 2.0} | settings))


def test_a_dictionary_whose_features_are_said_has_the_whole_score_and_one_that_says_others_none(sae, codes):
    own = word_scores(sae, codes, asked(Answers(lambda j: j % 12)))
    assert own == pytest.approx({LEVEL: 1.0, GAIN: 1.0})
    assert word_scores(sae, codes, asked(Answers(lambda j: (j + 1) % 12)))[LEVEL] == 0


def test_pushes_that_change_no_answer_gain_nothing(sae, codes):
    found = word_scores(sae, codes, asked(Answers(lambda j: 11), features=20))
    assert found[GAIN] == 0
    assert found[LEVEL] == pytest.approx(1 / 20), "feature 11 is active in the picture that is always named"


def test_live_features_are_clamped_at_one_strength_on_all_patches_without_the_error(sae, codes):
    scorer = Answers(lambda j: 0)
    word_scores(sae, codes, asked(scorer))
    pushes = scorer.pushes[1:]
    assert [list(push.features) for push in pushes] == [[0], [5], [10], [14], [19]]
    assert {value for push in pushes for value in push.features.values()} == {20.0}, (
        "twice the (lower) median of 1 to 20"
    )
    assert {(push.mode, push.tokens, push.keep_error) for push in pushes} == {("clamp", "spatial", False)}


def test_of_a_dead_dictionary_nothing_is_known(sae, codes):
    found = word_scores(sae, codes * 0, asked(Answers(lambda j: 0)))
    assert all(value != value for value in found.values())


def test_features_are_spaced_evenly():
    assert evenly_spaced(torch.arange(10, 20), 3).tolist() == [10, 14, 19]
    assert evenly_spaced(torch.arange(2), 3).tolist() == [0, 1]


@pytest.mark.filterwarnings("ignore:This SAE does not say")
def test_scores_are_those_of_answers_asked_one_by_one(encoder, images, own, sae):
    scorer = scorer_of("tiny", encoder, own, PROMPT, SITE)
    x = encoder.run(encoder.pixels(list(images)), SITE)[SITE][:, encoder.positions("spatial")]
    codes = sae.encode(x)
    found = word_scores(sae, codes, SteeredWords(scorer, images.subset([0, 1]), SITE, 2, 3.0))
    peak = codes.amax((0, 1))
    alive = peak.nonzero().squeeze(1).tolist()
    level, gain = [], []
    for j in (alive[0], alive[-1]):
        seen = codes[:, :, j].amax(1)
        tops = seen.argsort(descending=True, stable=True)[: int((seen > 0).sum())]
        meaning = torch.nn.functional.normalize(own[tops], dim=1).mean(0)
        value = 3.0 * float(peak[peak > 0].median())
        for picture in (images[0], images[1]):
            push = Intervention(sae, SITE, {j: value}, tokens="spatial", keep_error=False)
            steered, plain = (scorer.model.generate([picture], PROMPT, one, 5) for one in (push, None))
            said, before = (encoder.embed_texts([text[0].split()[0]])[0] for text in (steered, plain))
            level.append(cosine_similarity(said, meaning, dim=0))
            gain.append(level[-1] - cosine_similarity(before, meaning, dim=0))
    assert found[LEVEL] == pytest.approx(float(sum(level) / 4), abs=1e-4)
    assert found[GAIN] == pytest.approx(float(sum(gain) / 4), abs=1e-4)


def test_it_is_asked_only_where_it_looks_through_the_encoder_and_reads_behind_the_site(encoder, own):
    assert scorer_of("", encoder, own, PROMPT, SITE) is None
    assert scorer_of("tiny", encoder, own, PROMPT, "7.resid_post") is None
    other = SimpleNamespace(spec="other", mlp_norms=" ".join(str(2 * float(x)) for x in encoder.mlp_norms.split()))
    assert scorer_of("tiny", other, own, PROMPT, SITE) is None
