"""The embeddings that judge which pictures are alike: from an encoder, or from what is known."""

import pytest
import torch
from PIL import Image

from experiments import similarity as judges
from experiments.similarity import choose_judges, describe_judges, judge_embeddings, short_name
from lib.encoders.encoder import load_encoder
from lib.images.image_set import load_images
from tests.small_models import open_clip_folder


@pytest.fixture
def encoder(tmp_path):
    return f"open_clip:{open_clip_folder(tmp_path / 'clip')}"


def classes_of_pictures(folder, names=("crab", "owl", "owl")):
    for i, name in enumerate(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (80 * i, 120, 40)).save(folder / name / f"{i}.png")
    return load_images(f"folder:{folder}")


def test_an_encoder_judges_by_its_joint_embedding_at_unit_norm(encoder, tmp_path):
    images = load_images("menagerie:val[:5]")
    model = load_encoder(encoder)
    expected = model.embed_images(model.pixels(list(images)))
    torch.testing.assert_close(judge_embeddings(encoder, images, tmp_path), expected, atol=1e-5, rtol=0)


def test_an_encoder_is_asked_once_for_a_set_of_images(encoder, tmp_path, monkeypatch):
    images = load_images("menagerie:val[:5]")
    first = judge_embeddings(encoder, images, tmp_path)
    monkeypatch.setattr("lib.encoders.encoder.Encoder.run", lambda *_: pytest.fail("ran again"))
    assert torch.equal(judge_embeddings(encoder, images, tmp_path), first)


def test_two_judges_and_two_sets_of_images_are_kept_apart(tmp_path):
    specs = [f"open_clip:{open_clip_folder(tmp_path / name, seed)}" for seed, name in enumerate(("a", "b"))]
    sets = [load_images("menagerie:val[:4]"), load_images("menagerie:val[4:8]")]
    first = [judge_embeddings(spec, images, tmp_path) for spec in specs for images in sets]
    again = [judge_embeddings(spec, images, tmp_path) for spec in specs for images in sets]
    assert len(list((tmp_path / "judges").rglob("meta.json"))) == 4
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_the_facts_judge_without_a_look_at_the_pictures(tmp_path, monkeypatch):
    images = load_images("menagerie:val[:40]")
    monkeypatch.setattr(type(images), "__getitem__", lambda *_: pytest.fail("looked"))
    embeddings = judge_embeddings("facts", images, tmp_path)
    same = [i for i, facts in enumerate(images.facts["species"]) if facts == images.facts["species"][0]]
    cosines = torch.nn.functional.cosine_similarity(embeddings[:1], embeddings)
    others = [i for i in range(40) if i not in same]
    assert len(embeddings) == 40
    assert cosines[same].mean() > cosines[others].mean() + 0.2


def test_classes_are_the_facts_of_pictures_of_which_nothing_else_is_known(tmp_path):
    embeddings = judge_embeddings("facts", classes_of_pictures(tmp_path / "pictures"), tmp_path)
    torch.testing.assert_close(embeddings[1], embeddings[2])
    assert torch.cosine_similarity(embeddings[0], embeddings[1], dim=0) < 0


def test_facts_of_pictures_of_which_nothing_is_known_are_an_error_that_says_what_to_do(tmp_path):
    images = classes_of_pictures(tmp_path / "pictures", names=(".",))
    with pytest.raises(ValueError, match="take an encoder as the judge"):
        judge_embeddings(judges.FACTS, images, tmp_path)


def test_the_menagerie_is_judged_by_its_eye_and_its_facts(encoder):
    chosen = choose_judges([], load_encoder(encoder), load_images("menagerie:val[:20]"))
    assert chosen == {"tiny-eye": "tiny-eye", "facts": "facts"}


def test_photographs_are_judged_by_the_encoder_itself_never_by_the_menageries_eye(encoder, tmp_path):
    model = load_encoder(encoder)
    photographs = classes_of_pictures(tmp_path / "birds")
    assert choose_judges([], model, photographs) == {"clip itself": encoder, "facts": "facts"}
    Image.new("RGB", (9, 9)).save(tmp_path / "one.png")
    assert choose_judges([""], model, load_images(f"folder:{tmp_path}").subset([0])) == {"clip itself": encoder}
    assert "independent" in describe_judges({"clip itself": encoder}, model)


def test_an_encoder_without_an_embedding_leaves_the_facts_or_a_refusal(encoder, tmp_path):
    model = load_encoder(encoder)
    model.sites.remove("proj")
    assert choose_judges([], model, classes_of_pictures(tmp_path / "birds")) == {"facts": "facts"}
    alone = classes_of_pictures(tmp_path / "owls", ("owl", "owl"))
    with pytest.raises(ValueError, match="name another encoder as the judge"):
        choose_judges([], model, alone)


def test_judges_that_are_asked_for_judge_in_their_order(encoder):
    model, images = load_encoder(encoder), load_images("menagerie:val[:3]")
    asked = ["facts", "hf:someone/dino", encoder]
    assert choose_judges(asked, model, images) == {
        "facts": "facts",
        "dino": "hf:someone/dino",
        "clip itself": encoder,
    }
    same = ["hf:here/vit", "hf:there/vit"]
    assert list(choose_judges(same, model, images)) == same, "two of one short name keep their specs"
    assert "independent" not in describe_judges({"dino": "hf:someone/dino"}, model)


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("tiny-eye", "tiny-eye"),
        ("hf:facebook/dinov2-base", "dinov2-base"),
        ("hf:./models/vit/", "vit"),
        ("open_clip:ViT-B-32/openai", "ViT-B-32/openai"),
        ("facts", "facts"),
    ],
)
def test_a_judge_has_a_short_name(spec, name):
    assert short_name(spec) == name
