"""The protocol: who chooses cannot see the test, and the test is opened once."""

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from experiments.disentanglement.baselines import balanced_probe, leace_eraser, token_rows
from experiments.disentanglement.feature_choice import feature_stats, rankings
from experiments.disentanglement.group_accuracy import group_accuracy
from experiments.disentanglement.protocol import NearestText, Part, Protocol, ProtocolError, Task, split_scenes
from experiments.disentanglement.selection import select_settings
from experiments.disentanglement.suppression import Setting, by_count, runners_of, worst_group
from experiments.disentanglement.tasks import (
    Joined,
    birds_task,
    ordinary_tasks,
    people_task,
    reading_task,
    written_word_task,
)
from lib import SAEConfig, load_encoder
from lib.sae.model import SAE
from menagerie import SPECIES, zero_shot_prompts
from steering.interventions import Neurons
from tests.test_data_sets import make_celeba, make_disentangling, make_rta100, make_waterbirds

SITE, SIZES = "6.resid_post", (32, 16, 16)


class Guarded(Sequence):
    """Pictures of which some raise an error when they are looked at."""

    def __init__(self, images, forbidden):
        self.images, self.forbidden, self.seen = images, {int(i) for i in forbidden}, set()

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        assert int(i) not in self.forbidden, f"picture {i} is a test picture"
        self.seen.add(int(i))
        return self.images[int(i)]


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("tiny", device="cpu")


@pytest.fixture(scope="module")
def task():
    return people_task("menagerie:people[:250]")


@pytest.fixture(scope="module")
def dictionary(encoder):
    torch.manual_seed(0)
    return SAE(SAEConfig(kind="topk", width=64, k=8), encoder.d_model)


@pytest.fixture(scope="module")
def stickers():
    return written_word_task("menagerie:stickers[2000:2400]")


@pytest.fixture
def chapter(root):
    """The chapter's code."""
    cells = json.loads((root / "notebooks/10_disentanglement.ipynb").read_text())["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def all_choices(encoder, dictionary, task) -> tuple[str, Protocol]:
    """Everything that is chosen before the test, as the chapter does it."""
    usual = ordinary_tasks("menagerie:val[:60]")
    protocol = Protocol(task, SIZES, {name: (one, (0, 8, 8)) for name, one in usual.items()})
    part, checked = protocol.selection, protocol.validation
    runner, checking = (runners_of(encoder, {"": p.task})[""] for p in (part, checked))
    some = []
    for what, one in {"SAE": dictionary, "neurons": Neurons(encoder.d_model)}.items():
        (seen,) = feature_stats(part, runner, {SITE: [one]})[SITE]
        found = rankings(part, runner, one, SITE, seen, 4, n_candidates=3, n_pictures=2)
        for rule, ranking in found.items():
            some += by_count(f"{what}: {rule}", SITE, one, ranking, (1, 4))
    some.append(Setting("LEACE", SITE, leace_eraser(*token_rows(part, runner, [SITE])[SITE]), (0,)))
    settled = select_settings(checked, some, checking, runners_of(encoder, checked.beside), 0.2, (1.5,))
    plan = {str(key): outcome.setting.plan() for key, outcome in settled.items()}
    return json.dumps(plan | probe_and_prompts(part, runner, checking)), protocol


def probe_and_prompts(part, runner, checking) -> dict:
    """The probe's anchor, and the worst group of each, as validation pictures tell them."""
    embeddings = F.normalize(checking.embeddings([()])[0], dim=-1)
    weights = {anchor: balanced_probe(part, runner, anchor, steps=3) for anchor in (0.01, 1.0)}
    right = {anchor: (embeddings @ one.T).argmax(1) == checking.truth for anchor, one in weights.items()}
    anchor = max(right, key=lambda one: worst_group(right[one], checking.group))
    careful = NearestText(checking.encoder, checking.task, checking.task.attribute_prompts)
    prompted = careful.predict(embeddings) == checking.truth
    worst = [group_accuracy(one, checking.group).worst_group for one in (right[anchor], prompted)]
    return {"anchor": anchor, "worst groups": worst, "probe": weights[anchor].sum().item()}


class TestNothingOfTheTestIsSeen:
    def test_all_choices_are_the_same_with_test_pictures_that_must_not_be_looked_at_and_other_labels(
        self, encoder, dictionary, task
    ):
        test = split_scenes(task, SIZES)[2]
        wrong = {name: getattr(task, name).copy() for name in ("truth", "spurious", "suggested")}
        for values in wrong.values():
            values[test] = 1 - values[test]
        images = Guarded(task.images, test)
        guarded = replace(task, images=images, **wrong)
        assert all_choices(encoder, dictionary, guarded)[0] == all_choices(encoder, dictionary, task)[0]
        assert len(images.seen) == len(split_scenes(task, SIZES)[0]) + len(split_scenes(task, SIZES)[1])

    def test_this_would_fail_if_a_choice_did_look(self, encoder, task):
        test = split_scenes(task, SIZES)[2]
        guarded = replace(task, images=Guarded(task.images, test))
        with pytest.raises(AssertionError, match="is a test picture"):
            runners_of(encoder, {"": guarded.subset(test)})

    @pytest.mark.parametrize("choose", ["evidence", "rankings", "token_rows", "balanced_probe", "settle"])
    def test_what_chooses_refuses_test_pictures(self, choose):
        part = Part("test", Task("birds", [], (), (), np.zeros(0)))
        calls = {
            "evidence": lambda: feature_stats(part, None, {}),
            "rankings": lambda: rankings(part, None, None, SITE, None, 1),
            "token_rows": lambda: token_rows(part, None, [SITE]),
            "balanced_probe": lambda: balanced_probe(part, None, 1.0),
            "settle": lambda: select_settings(part, [], None, {}, 0.0),
        }
        with pytest.raises(ProtocolError, match="was given the test part of 'birds'"):
            calls[choose]()

    def test_features_are_not_chosen_on_validation_pictures_either(self):
        part = Part("validation", Task("birds", [], (), (), np.zeros(0)))
        with pytest.raises(ProtocolError, match="was given the validation part"):
            rankings(part, None, None, SITE, None, 1)


PLAN = {"features": [1, 2]}


class TestTheProtocol:
    @pytest.fixture
    def protocol(self, task):
        return Protocol(task, SIZES, seed=3)

    def test_the_test_is_closed_until_the_choices_are_laid_down(self, protocol):
        with pytest.raises(ProtocolError, match="stay closed until the choices are registered"):
            protocol.open_test(PLAN)

    def test_it_opens_for_those_choices_alone(self, protocol):
        protocol.preregister(PLAN)
        with pytest.raises(ProtocolError, match="not the registered choices"):
            protocol.open_test({"features": [1, 3]})

    def test_it_opens_once(self, protocol):
        protocol.preregister(PLAN)
        assert protocol.open_test(PLAN).role == "test"
        with pytest.raises(ProtocolError, match="they can be used once"):
            protocol.open_test(PLAN)

    def test_nothing_is_chosen_after_the_choices_were_registered(self, protocol):
        protocol.preregister(PLAN)
        for again in (lambda: protocol.selection, lambda: protocol.validation, lambda: protocol.preregister({})):
            with pytest.raises(ProtocolError, match="make a new Protocol"):
                again()

    def test_the_record_tells_what_happened_in_its_order(self, protocol):
        plan = protocol.preregister(PLAN)
        protocol.open_test(PLAN)
        assert protocol.record == [
            {"event": "choices registered", "hash": plan},
            {"event": "test opened", "hash": plan},
        ]

    def test_its_parts_share_no_picture_and_have_as_many_of_each_group(self, task):
        parts = split_scenes(task, SIZES, seed=3)
        everything = np.concatenate(parts)
        assert len(set(everything)) == len(everything)
        for part, size in zip(parts, SIZES, strict=True):
            assert np.bincount(task.group[part]).tolist() == [size // 4] * 4

    def test_a_group_that_is_too_small_gives_each_part_its_share(self):
        task = Task("t", range(30), ("a",), (((("x"),),),), np.zeros(30), ("many", "few"), np.arange(30) >= 24)
        parts = split_scenes(task, (12, 4, 8))
        assert [np.bincount(task.group[part]).tolist() for part in parts] == [[6, 3], [2, 1], [4, 2]]

    def test_too_few_pictures_are_an_error(self):
        with pytest.raises(ValueError, match="too few for parts of 5, 5, 5"):
            split_scenes(Task("t", range(2), ("a",), (((("x"),),),), np.zeros(2)), (5, 5, 5))

    def test_the_chapter_opens_the_test_in_one_place(self, chapter):
        assert chapter.count(".open_test(") == 1
        assert "._parts" not in chapter
        assert chapter.index(".preregister(") < chapter.index(".open_test(")

    @pytest.mark.parametrize("choice", ["ranked_settings(", "other_settings(", ".with_probe(", "select_settings("])
    def test_the_chapter_chooses_everything_before_it_lays_its_plan_down(self, chapter, choice):
        assert 0 < chapter.index(choice) <= chapter.rindex(choice) < chapter.index(".preregister(")


def dealing(group, scene, names=("some", "others")) -> Task:
    """A task of nothing but groups and scenes."""
    return Task("t", range(len(group)), ("a",), (((("x"),),),), np.zeros(len(group)), names, group, scene=scene)


class TestScenes:
    """Pictures of the same thing: what is chosen on one would be tested on the other."""

    def test_no_scene_of_the_stickers_lies_in_two_parts(self, stickers):
        parts = [set(stickers.scene[part]) for part in split_scenes(stickers, (120, 80, 160), seed=2)]
        assert len(set.union(*parts)) == sum(map(len, parts))

    def test_each_part_has_as_many_with_as_without_a_word(self, stickers):
        parts = split_scenes(stickers, (120, 80, 160), seed=2)
        assert [np.bincount(stickers.group[part]).tolist() for part in parts] == [[60, 60], [40, 40], [80, 80]]

    def test_every_picture_alone_would_split_scenes(self, stickers):
        parts = [
            set(stickers.scene[part]) for part in split_scenes(replace(stickers, scene=None), (120, 80, 160), seed=2)
        ]
        assert len(set.union(*parts)) < sum(map(len, parts))

    def test_a_picture_and_the_same_without_its_sticker_are_one_scene(self, stickers):
        assert stickers.scene[:400].tolist() == stickers.scene[400:].tolist()
        assert len(set(stickers.scene)) == 400

    def test_without_twins_the_deal_is_what_it_was_without_scenes(self, task):
        """A permutation of each group, cut into parts."""
        random, expected = np.random.default_rng(3), [[], [], []]
        for g in range(4):
            members = random.permutation(np.flatnonzero(task.group == g))
            for part, some in zip(expected, np.split(members, [8, 12, 16]), strict=False):
                part.extend(some)
        assert [part.tolist() for part in split_scenes(task, SIZES, seed=3)] == [sorted(part) for part in expected]

    def test_a_scene_of_many_pictures_fills_a_part_before_the_next_one_begins(self):
        task = dealing(np.zeros(60, int), np.arange(60) % 12, ("all",))
        parts = split_scenes(task, (20, 10, 30))
        assert [len(set(task.scene[part])) for part in parts] == [4, 2, 6]

    def test_what_finds_no_room_beside_its_scene_is_left_out(self):
        parts = split_scenes(dealing(np.zeros(9, int), np.arange(9) // 3, ("all",)), (2, 2, 2))
        assert [len(part) for part in parts] == [2, 2, 2]

    def test_a_small_group_does_not_lose_its_share_to_a_larger_one_of_the_same_scenes(self):
        task = dealing(np.arange(30) >= 24, np.arange(30) % 24)
        parts = split_scenes(task, (24, 8, 16))
        assert [np.bincount(task.group[part]).tolist() for part in parts] == [[12, 3], [4, 1], [8, 2]]

    def test_a_part_keeps_its_scenes(self, stickers):
        assert stickers.subset([5, 405, 7]).scene.tolist() == stickers.scene[[5, 405, 7]].tolist()


class TestTheTasks:
    def test_people_are_grouped_by_hair_and_presentation(self, task):
        facts = task.images.facts
        for i in range(40):
            hair = "blond hair" if facts.person_hair[i] == "blond" else "other hair"
            assert task.groups[task.group[i]] == f"{hair}, {facts.person_presentation[i]}"
            assert task.classes[task.truth[i]] == hair
            assert task.classes[task.suggested[i]] == (
                "other hair" if facts.person_presentation[i] == "man" else "blond hair"
            )

    def test_birds_are_grouped_by_bird_and_place(self):
        task = birds_task("menagerie:waterbirds[:40]")
        facts = task.images.facts
        for i in range(40):
            bird, on_water = ("water" if facts.water_bird[i] else "land"), facts.habitat[i] in ("water", "swamp")
            assert task.groups[task.group[i]] == f"{bird} bird on {'water' if on_water else 'land'}"
            assert task.classes[task.suggested[i]] == ("water bird" if on_water else "land bird")

    def test_stickers_stand_beside_the_same_pictures_without_them(self):
        task = written_word_task("menagerie:stickers[:10]")
        assert task.group.tolist() == [1] * 10 + [0] * 10
        assert task.truth[:10].tolist() == task.truth[10:].tolist()
        assert (task.suggested[10:] == -1).all()
        assert (task.suggested[:10] != task.truth[:10]).all()
        facts = task.images.sets[0].facts
        assert [task.classes[c] for c in task.suggested[:10]] == list(facts.sticker_word)

    def test_ordinary_pictures_show_one_creature_and_are_asked_two_things(self):
        tasks = ordinary_tasks("menagerie:val[:60]")
        assert set(tasks) == {"species", "habitat"}
        facts = tasks["species"].images.facts
        assert set(facts.kind) == {"creature"}
        assert [tasks["species"].classes[c] for c in tasks["species"].truth] == list(facts.species)

    def test_signs_are_asked_for_their_word(self):
        task = reading_task("menagerie:signs[:20]")
        assert [task.classes[c] for c in task.truth] == list(task.images.facts.sticker_word)

    def test_of_a_mixed_set_only_the_pictures_count_that_the_task_is_about(self):
        assert set(people_task("menagerie:val[:60]").images.facts.kind) == {"person"}

    def test_joined_sets_are_read_one_after_the_other(self):
        joined = Joined(["ab", "cde"], np.array([4, 0, 2]))
        assert list(joined) == ["e", "a", "c"]


class TestTheTasksOnPhotographs:
    @pytest.fixture
    def data(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MV_DATA", str(tmp_path))
        return tmp_path

    def test_celeba(self, data):
        make_celeba(data / "celeba")
        task = people_task("celeba:all")
        assert [task.groups[g] for g in task.group] == [
            "blond hair, woman", "dark hair, man", "dark hair, woman", "blond hair, man",
        ]  # fmt: skip

    def test_waterbirds(self, data):
        make_waterbirds(data / "waterbirds")
        task = birds_task("waterbirds:test")
        assert [task.groups[g] for g in task.group] == ["land bird on land", "land bird on water"]

    def test_rta100(self, data):
        make_rta100(data / "rta100")
        task = written_word_task("rta100")
        assert [task.classes[c] for c in task.truth] == ["dog", "guinea pig"]
        assert [task.classes[c] for c in task.suggested] == ["cat", "dog"]
        assert [task.groups[g] for g in task.group] == ["wrong word"] * 2

    def test_photographs_of_one_kind_of_object_are_one_scene(self, data):
        make_disentangling(data / "disentangling")
        task = written_word_task("disentangling")
        assert (task.scene[:, None] == task.scene).tolist() == (task.truth[:, None] == task.truth).tolist()

    @pytest.mark.parametrize("make", [people_task, birds_task])
    def test_pictures_without_the_facts_are_an_error(self, data, make):
        make_rta100(data / "rta100")
        with pytest.raises(ValueError, match="rta100 does not tell what this task asks for"):
            make("rta100")

    def test_disentangling_has_pictures_without_a_word(self, data):
        make_disentangling(data / "disentangling")
        task = written_word_task("disentangling")
        assert [task.groups[g] for g in task.group] == ["wrong word", "no word"]


class TestNearestText:
    def test_a_class_is_as_near_as_its_nearest_prototype(self, encoder, task):
        texts = NearestText(encoder, task)
        embeddings = torch.randn(5, encoder.d_embed, generator=torch.Generator().manual_seed(0))
        found = texts.logits(embeddings)
        for n in range(5):
            for c, sets in enumerate(task.prompts):
                near = []
                for some in sets:
                    mean = encoder.embed_texts(list(some)).mean(0)
                    near.append(float(torch.cosine_similarity(mean, embeddings[n], dim=0)))
                assert float(found[n, c]) == pytest.approx(encoder.logit_scale * max(near), rel=1e-4)

    def test_one_text_set_a_class_is_plain_zero_shot(self, encoder):
        images = ordinary_tasks("menagerie:val[:30]")["species"]
        assert images.classes == SPECIES
        assert images.prompts[3] == (tuple(zero_shot_prompts("species")[SPECIES[3]]),)
        assert NearestText(encoder, images).class_of.tolist() == list(range(len(SPECIES)))


def test_a_task_whose_parts_do_not_fit_is_an_error():
    with pytest.raises(ValueError, match=r"t: group is \(3,\), for 2 pictures"):
        Task("t", range(2), ("a",), (((("x"),),),), np.zeros(2), ("g",), np.zeros(3))
    with pytest.raises(ValueError, match="2 classes need as many sets of prompts"):
        Task("t", range(2), ("a", "b"), (((("x"),),),), np.zeros(2))
