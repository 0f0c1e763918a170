"""A plan's numbers against hand computation, against PyTorch's own count, and against what is then really there."""

import os
import subprocess
import sys
from types import SimpleNamespace

import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from book.tools import plan as planning
from book.tools.plan import Machine, Plan, duration, machine, needs_confirmation, show, size
from book.tools.profiles import Profile
from book.tools.sizes import VisionTransformer, encoder_size, pictures
from book.tools.work import Work

VIT_L_336 = VisionTransformer(24, 1024, 4096, 14, 336, 768)
PARAMETERS = """
profile_dir: str = "x"
encoder: str = "tiny"
train_images: str = "menagerie:train[:96]"
eval_images: str = "menagerie:val[:64]"
judges: list = ["tiny", "facts"]
sites: list = ["3.resid_post", "proj"]
tokens: str = "cls"
kinds: list = ["batchtopk", "matryoshka"]
expansions: list = [1, 2]
k: int = 8
steps: int = 2
batch_size: int = 32
seed: int = 0
sweep: list = [4, 8]
sweep_kind: str = "matryoshka"
sweep_expansion: float = 1
"""


class TestEncoders:
    def test_operations_by_hand(self):
        block = 577 * (8 * 1024**2 + 4 * 1024 * 4096) + 4 * 577**2 * 1024
        embedding = 2 * 576 * (3 * 14 * 14) * 1024
        assert VIT_L_336.flops(["proj"]) == embedding + 24 * block
        assert VIT_L_336.flops(["11.resid_post", "3.mlp_out"]) == embedding + 12 * block

    def test_operations_and_weights_are_those_of_the_real_model(self, root, monkeypatch):
        monkeypatch.chdir(root)
        from lib.encoders.encoder import load_encoder

        encoder, expected = load_encoder("tiny", device="cpu"), encoder_size("tiny")
        with FlopCounterMode(display=False) as counter:
            encoder.run(torch.zeros(1, 3, expected.image, expected.image), ["proj"])
        assert counter.get_total_flops() == pytest.approx(expected.flops(["proj"]), rel=0.05)
        weights = sum(parameter.numel() for parameter in encoder.model.visual.parameters())
        assert expected.parameters() == pytest.approx(weights, rel=0.05)

    @pytest.mark.parametrize(
        ("spec", "expected"),
        [
            ("open_clip:ViT-L-14-336/openai", VIT_L_336),
            ("hf:openai/clip-vit-large-patch14-336", VIT_L_336),
            ("hf:google/siglip-so400m-patch14-384", VisionTransformer(27, 1152, 4304, 14, 384, 1152)),
            ("open_clip:ViT-SO400M-14-SigLIP-384/webli", VisionTransformer(27, 1152, 4304, 14, 384, 1152)),
            ("tiny", VisionTransformer(8, 192, 576, 16, 112, 128)),
            ("tiny-eye", VisionTransformer(6, 160, 480, 16, 112, 160)),
        ],
    )
    def test_sizes_are_known_without_loading(self, root, spec, expected):
        assert encoder_size(spec, root) == expected

    def test_a_local_folder_tells_its_own_size(self, tmp_path):
        config = (
            '{"vision_config": {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128, "image_size": 32, '
        )
        (tmp_path / "config.json").write_text(config + '"patch_size": 8}, "projection_dim": 16}')
        assert encoder_size(f"hf:{tmp_path}") == VisionTransformer(2, 64, 128, 8, 32, 16)

    def test_an_unknown_size_says_what_to_do(self):
        with pytest.raises(ValueError, match="load it once, or add it to HUB"):
            encoder_size("hf:someone/some-model")


class TestPictures:
    @pytest.mark.parametrize("spec", ["menagerie:val[:100]", "menagerie:val[10:200:3]", "menagerie:val"])
    def test_the_menagerie_is_counted_and_named_as_by_its_loader(self, spec):
        from lib.images.image_set import load_images

        images, found = load_images(spec), pictures(spec)
        assert (found.spec, found.count, found.known) == (images.spec, len(images), True)

    def test_a_folder_may_be_called_like_a_slice(self, tmp_path):
        for folder, n in (("set", 3), ("set[1:2]", 2)):
            (tmp_path / folder).mkdir()
            for i in range(n):
                Image.new("RGB", (2, 2)).save(tmp_path / folder / f"{i}.png")
        assert pictures(f"folder:{tmp_path}/set[1:2]").count == 2
        assert pictures(f"folder:{tmp_path}/set[0:1]").count == 1

    def test_public_sets_are_known_without_their_files(self):
        assert pictures("imagenet:train").count == 1_281_167
        assert pictures("imagenet:val[::50]").count == 1000

    def test_a_set_that_is_not_there_is_assumed_to_have_a_size(self):
        assert not pictures("folder:/nowhere").known


class TestMachine:
    EXTRACTION = Work("activations", (), flops=6e12, pictures=1000)
    TRAINING = Work("dictionary", (), flops=6e12, float32=True)

    def test_cores_read_pictures_and_then_compute(self):
        seconds = 6e12 / (2 * 0.5e12) + 1000 / (2 * planning.PHOTOGRAPHS_READ)
        assert Machine(False, 0.5, cores=2).hours([self.EXTRACTION], threads=4) == pytest.approx(seconds / 3600)

    def test_a_gpu_computes_while_the_cores_read(self):
        seconds = max(6e12 / 2e12, 1000 / (4 * planning.PHOTOGRAPHS_READ))
        assert Machine(True, 2, cores=8).hours([self.EXTRACTION], threads=4) == pytest.approx(seconds / 3600)

    def test_dictionaries_are_trained_in_float32(self):
        seconds = 6e12 / (2e12 * planning.GPU_FLOAT32)
        assert Machine(True, 2, cores=8).hours([self.TRAINING], threads=4) == pytest.approx(seconds / 3600)

    def test_a_cluster_is_reckoned_with_its_gpus_and_a_given_speed_goes_first(self, monkeypatch):
        monkeypatch.setattr(planning, "gpus_here", lambda: 0)
        assert machine("slurm", cores=2) == planning.ANY_GPU
        assert machine("local", cores=2) == Machine(False, planning.CPU_TFLOPS, 2)
        assert machine("local", cores=2, tflops=0.7).tflops == 0.7


def test_sizes_and_times_read_like_sizes_and_times():
    assert [size(n) for n in (12, 34_000, 5.67e7, 8.9e10, 1.2e13)] == ["12 B", "34 kB", "56.7 MB", "89.0 GB", "12.0 TB"]
    assert [duration(n) for n in (12, 300, 7200)] == ["12 s", "5 min", "2.0 h"]


def write_project(folder, root, profile: str, parameters: str = PARAMETERS) -> Profile:
    """Two notebooks, `a` and `b`, with the same parameters, and a third that has none that a plan knows."""
    for name in ("notebooks", "profiles"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "assets").symlink_to(root / "assets")
    for name, source in {"a": parameters, "b": parameters, "c": 'profile_dir: str = "x"'}.items():
        cells = [new_markdown_cell("# T"), new_code_cell(source.strip(), metadata={"tags": ["parameters"]})]
        kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
        nbformat.write(
            new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / "notebooks" / f"{name}.ipynb"
        )
    (folder / "profiles" / "mine.yaml").write_text(profile)
    return Profile("mine", folder)


class TestPlan:
    PROFILE = "notebooks: {a: {}, b: {}, c: {}}"

    @pytest.fixture
    def plan(self, tmp_path, root):
        return Plan.of(write_project(tmp_path, root, self.PROFILE))

    def test_training_by_hand(self, plan):
        trainings = [work for work in plan.notebooks[0].works if work.float32]
        operations = [4 * 2 * 32 * d * f + 2 * 64 * d * f for d in (192, 128) for f in (d, d, 2 * d, 2 * d)]
        operations.append(4 * 2 * 32 * 128 * 128 + 2 * 64 * 128 * 128)  # k = 4; k = 8 is in the grid
        assert sorted(work.flops for work in trainings) == sorted(operations)

    def test_scopes_of_tokens_share_one_extraction_and_have_dictionaries_of_their_own(self, tmp_path, root):
        text = PARAMETERS.replace('tokens: str = "cls"', 'scopes: list = ["all", "cls"]').replace(', "proj"]', "]")
        works = Plan.of(write_project(tmp_path, root, self.PROFILE, text)).notebooks[0].works
        passes = [work for work in works if work.place[0] == "pass" and work.place[2].startswith("menagerie:train")]
        assert [work.disk for work in passes] == [96 * 50 * 192 * 2]
        folders = [folder.parts[-2] for work in works if work.place[0] == "dictionary" for folder in work.folders]
        assert {tokens: folders.count(tokens) for tokens in folders} == {"all": 5, "cls": 5}

    def test_the_dictionary_looked_at_closely_and_its_frozen_nulls_have_one_size(self, tmp_path, root):
        text = PARAMETERS + 'kind: str = "topk"\nexpansion: float = 4\nfrozen: list = ["frozen_decoder"]'
        works = Plan.of(write_project(tmp_path, root, self.PROFILE, text)).notebooks[0].works
        configs = {work.place[-1] for work in works if work.place[0] == "dictionary"}
        assert {(one.kind, one.expansion) for one in configs if one.expansion == 4} == {
            ("topk", 4), ("frozen_decoder", 4),
        }  # fmt: skip
        assert {one.kind for one in configs if one.expansion < 4} == {"batchtopk", "matryoshka"}

    def test_of_a_chapter_that_shows_one_dictionary_only_that_is_trained_again(self, tmp_path, root):
        text = PARAMETERS + 'shown: str = "topk"\nshown_expansion: float = 2\nseeds: list = [1, 2]'
        works = Plan.of(write_project(tmp_path, root, self.PROFILE, text)).notebooks[0].works
        again = [work.place for work in works if work.place[0] == "dictionary" and work.place[-1].seed]
        assert {(place[3], place[-1].kind, place[-1].expansion, place[-1].seed) for place in again} == {
            ("proj", "topk", 2, 1), ("proj", "topk", 2, 2),
        }  # fmt: skip

    def test_what_an_earlier_notebook_makes_is_not_counted_again(self, plan):
        assert plan.notebooks[1].disk == 0
        counted = plan.hours(planning.ANY_GPU) - len(plan.notebooks) * planning.CHAPTER_SECONDS / 3600
        assert counted == pytest.approx(planning.ANY_GPU.hours(plan.notebooks[0].works, threads=1))

    def test_a_notebook_that_tells_nothing_is_marked(self, plan, tmp_path):
        assert plan.notebooks[2].works is None
        assert "  c                                -" in show([plan], planning.ANY_GPU, tmp_path)

    def test_one_that_trains_what_its_parameters_do_not_tell_is_marked_too(self, tmp_path, root):
        text = PARAMETERS.replace("kinds: list", "variants: list").replace("sweep: list", "others: list")
        assert Plan.of(write_project(tmp_path, root, self.PROFILE, text)).notebooks[0].works is None

    def test_dictionaries_of_one_site_are_in_memory_together(self, plan):
        largest = max(work.memory for work in plan.notebooks[0].works)
        numbers = sum(2 * 192 * f + f + 192 for f in (192, 192, 384, 384))
        assert largest == max(4 * 4 * numbers, encoder_size("tiny").parameters() * 4)

    def test_what_is_not_known_is_said(self, tmp_path, root):
        text = PARAMETERS.replace("menagerie:train[:96]", "folder:/nowhere").replace('["tiny",', '["hf:some/eye",')
        plan = Plan.of(write_project(tmp_path, root, self.PROFILE, text))
        assert any("folder:/nowhere is not on this machine" in line for line in plan.assumed)
        assert any("hf:some/eye is not known here" in line for line in plan.assumed)

    def test_the_disk_it_foretells_is_the_disk_it_takes_and_then_nothing_is_left(
        self, plan, tmp_path, root, monkeypatch
    ):
        monkeypatch.chdir(root)
        make_artifacts(tmp_path / "build" / "mine")
        files = (tmp_path / "build" / "mine").rglob("*.safetensors")
        assert plan.disk_left == 0
        assert sum(file.stat().st_size for file in files) == pytest.approx(plan.notebooks[0].disk, rel=0.05)


def make_artifacts(build) -> None:
    """What a notebook with the parameters above makes."""
    from experiments.sae_folders import sae_folder
    from experiments.similarity import judge_embeddings
    from lib.activations.extraction import activations_folder, extract
    from lib.encoders.encoder import load_encoder
    from lib.images.image_set import load_images
    from lib.sae.model import SAEConfig
    from lib.sae.training import train_sae

    encoder, sites = load_encoder("tiny", device="cpu"), ["3.resid_post", "proj"]
    for spec in ("menagerie:train[:96]", "menagerie:val[:64]"):
        images = load_images(spec)
        folder = activations_folder(build, images.spec, "cls")
        stores = extract(encoder, images, sites, out=folder, workers=0, progress=False)
        if "train" in spec:
            train = stores
    judge_embeddings("tiny", load_images("menagerie:val[:64]"), build)
    settings = {"steps": 2, "batch_size": 32}
    grid = [SAEConfig(kind, size, k=8, **settings) for kind in ("batchtopk", "matryoshka") for size in (1, 2)]
    for site in sites:
        configs = [*grid, *([SAEConfig("matryoshka", 1, k=4, **settings)] if site == "proj" else [])]
        folders = [sae_folder(build, site, "cls", config) for config in configs]
        train_sae(train[site], configs, out=folders, device="cpu", progress=False)


class TestConfirmation:
    SLOW = Machine(False, 1e-9, cores=1)

    def test_hours_and_disk_each_ask_for_it(self, tmp_path, root):
        plan = Plan.of(write_project(tmp_path, root, "notebooks: {a: {}}"))
        large = SimpleNamespace(hours_left=lambda on: 0.1, disk_left=51e9)
        assert not needs_confirmation([plan], planning.ANY_GPU)
        assert needs_confirmation([plan], self.SLOW)
        assert needs_confirmation([large], planning.ANY_GPU)

    def test_a_long_build_is_shown_and_not_started(self, tmp_path, root):
        write_project(tmp_path, root, "shared: {steps: 1000000000}\nnotebooks: {a: {}}")
        command = [sys.executable, "-m", "book.tools.build", "--profile", "mine", "--cores", "1"]
        environment = os.environ | {"PYTHONPATH": str(root)}
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert result.returncode == 1
        assert "Left to do" in result.stdout
        assert "add CONFIRM=1 to start it" in result.stderr

    @pytest.mark.parametrize("name", ["tiny", "smoke"])
    def test_the_default_build_needs_none(self, root, name):
        assert not needs_confirmation([Plan.of(Profile(name, root))], Machine(False, planning.CPU_TFLOPS, cores=2))


class TestWhatTheChaptersTake:
    def test_the_default_profile_comes_out_within_a_quarter_of_its_27_minutes_on_two_cores(self, root):
        hours = Plan.of(Profile("tiny", root)).hours(Machine(gpu=False, tflops=planning.CPU_TFLOPS, cores=2))
        assert 27 / 1.25 < hours * 60 < 27 * 1.25

    @pytest.mark.parametrize(
        "name", ["06_steering_llava", "07_steering_scores", "09_steerability", "10_disentanglement"]
    )
    def test_interventions_and_answers_of_the_paper_profile_are_counted(self, root, name):
        plan = next(one for one in Plan.of(Profile("paper", root)).notebooks if one.name == name)
        steering = [work for work in plan.works if work.what in ("interventions", "answers")]
        assert planning.ANY_GPU.hours(steering, plan.threads) * 3600 > 30

    @pytest.mark.parametrize(("times", "correction"), [(2.0, 2.0), (0.5, 0.5), (100.0, 4.0), (0.001, 0.25)])
    def test_the_last_builds_seconds_correct_what_is_left(self, times, correction):
        on = Machine(gpu=False, tflops=1.0, cores=1)
        built = planning.NotebookPlan("a", 1, [], measured=times * planning.CHAPTER_SECONDS)
        plan = Plan("x", [built, planning.NotebookPlan("b", 1, [Work("w", ("w",), 1e12 * 100)])], [], {})
        assert plan.correction(on) == pytest.approx(correction)
        assert plan.hours_left(on) * 3600 == pytest.approx((100 + planning.CHAPTER_SECONDS) * correction)

    def test_what_is_not_counted_is_said(self, root):
        text = show([Plan.of(Profile("tiny", root))], Machine(False, 0.1, 2), root)
        assert "Not counted: rendering." in text
        assert "to a factor of about two" in text
