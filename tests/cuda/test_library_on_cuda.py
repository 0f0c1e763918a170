"""The public API on CUDA gives the CPU's numbers, to 1e-5 in float32, and takes rows, codes, pictures from anywhere."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments import hierarchy, steering_scores
from experiments.directions import difference_of_means, difference_of_means_by_text, largest_codes, top_pictures
from experiments.disentanglement.baselines import balanced_probe, leace_eraser, mean_difference_eraser, token_rows
from experiments.disentanglement.feature_choice import feature_stats, rankings
from experiments.disentanglement.protocol import Part
from experiments.disentanglement.suppression import (
    Runner,
    Setting,
    every_subset,
    outcomes,
    subset_results,
    suppress,
)
from experiments.disentanglement.tasks import ordinary_tasks, people_task
from experiments.ensembles import Bagging, Boosting, train_boosting
from experiments.probing import read_pictures
from experiments.splicing import fit_tokens, reconstruction_at, spliced_embeddings, zero_at
from experiments.sweep import clamps, measure_steerability
from lib import (
    SAE,
    ActivationStream,
    FeatureTable,
    Intervention,
    PairedActivations,
    SAEConfig,
    extract,
    load_encoder,
    load_images,
    load_llava,
    load_sae,
    metrics,
    train_sae,
)
from lib.activations.extraction import ActivationStore
from lib.sae import training
from lib.sae.objectives import trained_kinds
from steering.cached_forward import CachedForward
from steering.interventions import Directions, Neurons
from steering.transcoders import transcoded
from tests.cuda.both import assert_same, cuda_device, devices, same_on_both
from tests.small_steering import PROMPTS
from widgets import FeatureExplorer, HierarchyTree, SteeringPanel, SuppressionPanel
from widgets.steering_kernel import Answering
from widgets.suppression_panel import Suppressing

IMAGES = load_images("menagerie:val[:12]")
SITE = "6.resid_post"
KINDS = trained_kinds()
PEERS = Path(__file__).parents[1] / "fixtures" / "peers"
DICTIONARIES = [f"{library}/topk" for library in ("dictionary_learning", "overcomplete", "saelens", "saev", "sparsify")]
QUICKLY = {"workers": 0, "progress": False}

pytestmark = pytest.mark.usefixtures("no_float64")  # as on Apple's GPUs; CUDA's float64 is for the metrics' own tests


def config(kind: str = "batchtopk", **changed) -> SAEConfig:
    points = {"archetypes": 450} if kind == "archetypal" else {}
    return SAEConfig(kind=kind, expansion=2, k=8, steps=4, batch_size=128, checkpoint_every=2, **points | changed)


def encoder_on(device: str):
    return load_encoder("tiny", device=device, dtype="float32")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> ActivationStore:
    """All tokens of the pictures, extracted on the CPU."""
    out = tmp_path_factory.mktemp("store")
    return extract(encoder_on("cpu"), IMAGES, [SITE], "all", out, "float32", **QUICKLY)[SITE]


@pytest.fixture(scope="module")
def sae(store) -> SAE:
    return train_sae(store, config(), device="cpu", progress=False)


def fresh(sae: SAE, device: str) -> SAE:
    """A copy of an SAE on a device; `.to` would move the one that others use."""
    copy = SAE(sae.config, sae.d)
    copy.load_state_dict(sae.state_dict())
    return copy.to(device)


class TestActivations:
    @pytest.mark.parametrize("workers", [0, 2])
    def test_extraction(self, tmp_path, workers):
        def rows(device):
            stores = extract(encoder_on(device), IMAGES, [SITE, "proj"], "random:3", tmp_path / device, "float32",
                             batch_size=5, workers=workers, progress=False)  # fmt: skip
            return {site: store[:] for site, store in stores.items()}

        same_on_both(rows, on_a_gpu=1e-4)  # other sizes of batches than the CPU's, of values up to 100

    def test_a_stream(self):
        def batch(device):
            stream = ActivationStream(encoder_on(device), IMAGES, SITE, "spatial", batch_size=4, workers=0)
            return next(stream.batches(32)), stream.rms(64), stream.mean(64)

        assert devices(same_on_both(batch, on_a_gpu=1e-4)) == {"cuda"}

    def test_training_from_a_stream(self, store):
        def explained(device):
            stream = ActivationStream(encoder_on(device), IMAGES, SITE, "all", batch_size=4, workers=0)
            sae = train_sae(stream, config(), device=device, progress=False)
            return metrics.reconstruction(store[:], sae(store[:]))

        same_on_both(explained, on_a_gpu=1e-2, emulated=1e-3)  # Adam begins with signs

    def test_a_store_is_indexed_by_whatever_lies_on_cuda(self, store):
        rows = torch.tensor([5, 0, -1])
        mask = torch.arange(len(store)) % 7 == 0
        with cuda_device():
            assert torch.equal(store[rows.to("cuda")], store[rows])
            assert torch.equal(store[mask.to("cuda")], store[mask])
            assert torch.equal(store[rows.to("cuda")[0]], store[5])
            made = ActivationStore.from_tensor(store[:10].to("cuda"), torch.arange(10, device="cuda"))
            assert torch.equal(made[:], store[:10])


class TestSAE:
    @pytest.mark.parametrize("kind", KINDS)
    def test_every_kind_trains_and_goes_on_where_it_was_killed(self, store, tmp_path, monkeypatch, kind):
        def trained(device):
            options = {"out": tmp_path / device, "device": device, "progress": False}
            with monkeypatch.context() as patched:
                patched.setattr(training.Run, "finish", _killed)
                with pytest.raises(KeyboardInterrupt):
                    train_sae(store, config(kind), **options)
            return train_sae(store, config(kind), **options).state_dict()

        # a GPU draws other noise than a CPU
        assert devices(same_on_both(trained, on_a_gpu=1 if kind == "vsae" else 1e-3)) == {"cuda"}

    def test_a_transcoder_trains_and_takes_the_mlps_place(self, tmp_path):
        def trained(device):
            encoder, sites = encoder_on(device), ["4.mlp_in", "4.mlp_out"]
            stores = extract(encoder, IMAGES, sites, "cls", tmp_path / device, "float32", **QUICKLY)
            pairs = PairedActivations(*(stores[site] for site in sites), skip=True)
            transcoder = train_sae(pairs, replace(config(), batch_size=12), device=device, progress=False)
            with transcoded(encoder, transcoder):
                spliced = encoder.embed_images(IMAGES)
            return transcoder(stores["4.mlp_in"][:]), spliced

        assert devices(same_on_both(trained, on_a_gpu=1e-2, emulated=1e-3)) == {"cuda"}

    @pytest.mark.parametrize("kind", KINDS)
    def test_every_kind_encodes_and_decodes_rows_from_anywhere(self, store, kind):
        trained = train_sae(store, config(kind), device="cpu", progress=False)
        x = store[:64]

        def answers(device):
            sae = fresh(trained, device)
            codes, sparse = sae.encode(x), sae.encode_sparse(x)
            assert devices([codes, sparse]) == {device}
            halves = sae.encode(x.half()), sae.encode(x.numpy())
            return codes, sparse, sae.decode(codes, x), sae.decode(sparse), sae(x), halves, sae.encode_sparse(x[:0])

        same_on_both(answers)

    def test_what_was_saved_on_cuda_loads_on_the_cpu_and_back(self, sae, store, tmp_path):
        with cuda_device():
            fresh(sae, "cuda").save(tmp_path)
            assert devices(SAE.load(tmp_path).W_dec) == {"cuda"}  # "auto" is CUDA
            loaded = SAE.load(tmp_path, device="cpu")
            assert_same(dict(sae.state_dict()), dict(loaded.state_dict()))

    def test_several_at_once_and_on_both_devices(self, store):
        def trained(device):
            saes = train_sae(store, [config(), config("topk")], validation=store, device=device, progress=False)
            return [sae.state_dict() for sae in saes]

        same_on_both(trained)

    def test_ensembles(self, store):
        def answers(device):
            boosting = train_boosting(store, config(), 2, device=device, progress=False)
            bagging = Bagging(list(boosting.members))
            x = store[:50]
            return [(e.encode(x), e.encode_sparse(x), e(x), e.W_dec) for e in (boosting, bagging)]

        same_on_both(answers)

    @pytest.mark.parametrize("case", DICTIONARIES)
    def test_dictionaries_of_other_libraries(self, case):
        def codes(device):
            sae = load_sae(PEERS / case, device=device)
            x = torch.randn(8, sae.d, generator=torch.Generator().manual_seed(0))
            return sae.encode(x), sae(x)

        assert devices(same_on_both(codes)) == {"cuda"}


def _killed(*_):
    raise KeyboardInterrupt


class TestFeatures:
    @pytest.fixture(scope="class")
    def tables(self, sae) -> tuple[FeatureTable, FeatureTable]:
        """One made on the CPU, one with encoder and SAE on CUDA."""

        def table(device, of=None):
            parts = encoder_on(device), fresh(sae, of or device), IMAGES, SITE, "all"
            return FeatureTable.compute(*parts, top=4, batch_size=5, **QUICKLY)

        here = table("cpu")
        with cuda_device():
            there, mixed = table("cuda"), table("cuda", of="cpu")
        assert_same(there, mixed, 1e-3)
        return here, there

    def test_a_table_is_on_the_cpu_wherever_it_was_computed(self, tables):
        here, there = tables
        assert devices(there) == {"cpu"}
        assert_same(here.codes, there.codes, 1e-4)
        assert_same(here.top_values, there.top_values, 1e-4)
        assert_same(here.patch_maps, there.patch_maps, 1e-2)  # float16

    def test_names_and_neighbours(self, tables, sae):
        words = ["owl", "cat", "snow"]

        def found(device):
            encoder = encoder_on(device)
            embeddings = encoder.run(encoder.pixels(list(IMAGES)), ["proj"])["proj"]
            table = tables[0]
            return table.names(words, encoder, embeddings), table.neighbours(fresh(sae, device), 3)

        same_on_both(found)

    def test_the_explorer_and_the_tree_take_scores_from_cuda(self, tables, sae):
        table = tables[0]

        def pages(device):
            scores = torch.linspace(0, 1, sae.n_features, device=device)
            explorer = FeatureExplorer(table, IMAGES, fresh(sae, device), scores=scores, thumbnail=16)
            explorer._all_about(int(table.alive.nonzero()[0]))
            tree = HierarchyTree(
                table.top_images.to(device), hierarchy.parents(table.codes.to(device), (40, sae.n_features)),
                (40, sae.n_features), IMAGES, {"score": scores}, [""] * sae.n_features, thumbnail=16,
            )  # fmt: skip
            return explorer.numbers, explorer.meta, tree.numbers, tree.meta

        same_on_both(pages)

    def test_pooling_for_probes(self, store, sae):
        def read(device):
            pictures = read_pictures(store, fresh(sae, device))
            return pictures.raw, {name: codes.toarray() for name, codes in pictures.codes.items()}, pictures.error

        same_on_both(read)

    def test_the_scale_of_codes_and_the_top_pictures(self, store, sae):
        same_on_both(lambda device: [f(fresh(sae, device), store) for f in (largest_codes, top_pictures)])

    def test_fidelity(self, store, sae):
        def fit(device):
            return fit_tokens(fresh(sae, device), store)

        assert devices(same_on_both(fit)) == {"cpu"}

    def test_splicing(self, sae):
        def embeddings(device, of=None):
            splice = {
                (): (),
                "sae": (reconstruction_at(SITE, fresh(sae, of or device)),),
                "zero": (zero_at(SITE, sae.d),),
            }
            return spliced_embeddings(encoder_on(device), IMAGES, splice, batch_size=5, **QUICKLY)

        assert devices(same_on_both(embeddings, on_a_gpu=1e-4)) == {"cpu"}
        with cuda_device():
            assert_same(embeddings("cuda"), embeddings("cuda", of="cpu"), 1e-4)


def interventions(sae: SAE, device: str) -> dict[str, Intervention]:
    grid = np.zeros((7, 7), bool)
    grid[2:4] = True
    directions = torch.eye(3, sae.d, device=device)
    return {
        "SAE": Intervention(sae, SITE, {0: 9.0, 3: -2.0}),
        "SAE without its error": Intervention(sae, SITE, {0: 9.0}, keep_error=False),
        "SAE, suppressed": Intervention(sae, SITE, {1: 3.0}, "suppress", tokens="spatial"),
        "neurons": Intervention(Neurons(sae.d), "4.mlp_out", {1: 3.0}, "add"),
        "neurons of another site": Intervention(Neurons(sae.d), "4.attn_out", {1: 3.0}, tokens="cls"),
        "directions": Intervention(Directions(directions), SITE, {2: 5.0}),
        "directions scaled": Intervention(Directions(directions), "3.resid_post", {2: 5.0}, "scale"),
        "a mask of patches": Intervention(Neurons(sae.d), SITE, {5: 4.0}, tokens=torch.from_numpy(grid).to(device)),
    }


class TestSteering:
    @pytest.mark.parametrize("where", ["with the encoder", "on the CPU"])
    def test_interventions(self, sae, where):
        def steered(device):
            encoder, dictionary = encoder_on(device), fresh(sae, device if where == "with the encoder" else "cpu")
            pixels, found = encoder.pixels(list(IMAGES)[:2]), {}
            for name, intervention in interventions(dictionary, device).items():
                with encoder.steered(intervention):
                    found[name] = encoder.run(pixels, ["proj"])["proj"]
                looks = CachedForward(encoder, "proj", pixels, [(intervention,)])
                assert_same(looks.values([(intervention,)])[0], found[name], 1e-4)
            return found

        same_on_both(steered, on_a_gpu=1e-4)

    def test_directions_from_activations_and_texts(self, store):
        x = store[:60]

        def found(device):
            encoder = encoder_on(device)
            texts = encoder.embed_texts(["owl", "snow"])
            pictures = torch.randn(60, texts.shape[1], generator=torch.Generator().manual_seed(0))
            return difference_of_means(x[:30], x[30:].to(device)), difference_of_means_by_text(x, pictures, texts, 5)

        same_on_both(found, on_a_gpu=1e-4)

    def test_steerability(self, sae):
        def measured(device):
            encoder = encoder_on(device)
            words = encoder.embed_texts(["owl", "cat", "snow"])
            pushes = clamps(fresh(sae, device), SITE, range(5), [30.0] * 5)
            return measure_steerability(encoder, encoder.pixels(list(IMAGES)[:3]), pushes, words, progress=False)

        # probabilities of logits, which are added up in another order where more pictures go through a block at a time
        assert devices(same_on_both(measured, on_a_gpu=1e-4, emulated=1e-4)) == {"cpu"}

    def test_llava_answers_and_streams(self, sae):
        question, pictures = "What is shown in this image? Use exactly one word!", list(IMAGES)[:2]

        def said(device):
            llava = load_llava("tiny", device=device, dtype="float32")
            pushed = Intervention(fresh(sae, device), llava.site, {0: 20.0}, keep_error=False)
            answers = llava.answers(pictures, question, [None, pushed], max_new_tokens=3)
            drawn = llava.generate(pictures[:1], question, pushed, max_new_tokens=3, temperature=1.0)
            return answers, drawn, list(llava.stream(pictures[0], question, pushed, max_new_tokens=3))

        same_on_both(said)

    def test_the_panel_and_the_kernel_behind_it(self, sae):
        def page(device):
            llava, sent, done = load_llava("tiny", device=device, dtype="float32"), [], threading.Event()
            dictionary = fresh(sae, device)
            features = [{"feature": j, "name": f"f{j}", "max": 5.0, "pictures": []} for j in range(2)]
            panel = SteeringPanel(
                llava, dictionary, llava.site, list(IMAGES)[:1], features, PROMPTS[:1],
                peaks=torch.ones(2, device=device), alphas=[0, 1], start=1, stored=(1, 1, 1), max_new_tokens=2,
            )  # fmt: skip

            def send(message):
                sent.append(message)
                if message["kind"] in ("error", "stopped") or (message["kind"] == "done" and message["run"] == 1):
                    done.set()

            line = Answering(llava, dictionary, llava.site, list(IMAGES)[:1], send)
            mask = [[True] * 7] * 7
            edit = {"features": [[0, 9.0]], "mode": "clamp", "tokens": mask, "keep_error": True}
            request = {"kind": "answer", "request": 1, "picture": 0, "prompt": PROMPTS[0], "max_new_tokens": 3}
            line.receive(request | {"edits": [None, edit]}, [])
            assert done.wait(60)
            return panel.numbers, panel.meta, sent

        same_on_both(page)


class TestSuppression:
    @pytest.fixture(scope="class")
    def task(self):
        return people_task("menagerie:people[:200]").subset(range(10))

    def test_pictures_wait_on_the_cpu_so_that_a_gpu_holds_one_batch(self, task):
        with cuda_device():
            runner = Runner(encoder_on("cuda"), task, workers=0)
            assert devices(runner.pixels) == {"cpu"}

    @pytest.mark.parametrize("where", ["with the encoder", "on the CPU"])
    def test_evidence_rankings_and_outcomes(self, task, sae, where):
        def found(device):
            dictionary = fresh(sae, device if where == "with the encoder" else "cpu")
            runner, part = Runner(encoder_on(device), task, workers=0), Part("selection", task)
            [seen, of_neurons] = feature_stats(part, runner, {SITE: [dictionary, Neurons(sae.d)]})[SITE]
            ranked = rankings(part, runner, dictionary, SITE, seen, most=2, n_candidates=4, n_pictures=2)
            some = [Setting("rule", SITE, dictionary, (0, 1), 1.0)]
            return seen, of_neurons, ranked, [one.correct for one in outcomes(some, runner)]

        assert devices(same_on_both(found, on_a_gpu=1e-3)) == {"cpu"}  # attributions are sums of thousands of products

    def test_subsets_erasers_and_the_panel(self, task, sae):
        ordinary = {name: one.subset(range(4)) for name, one in ordinary_tasks("menagerie:val[:40]").items()}

        def found(device):
            encoder, dictionary = encoder_on(device), fresh(sae, device)
            runner, part = Runner(encoder, task, workers=0), Part("selection", task)
            usual = {name: Runner(encoder, one, workers=0) for name, one in ordinary.items()}
            setting = Setting("rule", SITE, dictionary, (0, 1), 1.0)
            features = [{"id": j, "name": f"f{j}"} for j in setting.features]
            result = subset_results(setting, runner, usual, features, examples=[0])
            SuppressionPanel([result], [[IMAGES[0]]])
            x, concept = token_rows(part, runner, [SITE])[SITE]
            erased = [
                runner.embeddings([suppress(make(x, concept), SITE, [0])])
                for make in (mean_difference_eraser, leace_eraser)
            ]
            return every_subset(setting, runner), result.predictions, erased, balanced_probe(part, runner, 0.1, steps=5)

        same_on_both(found, on_a_gpu=1e-3)

    def test_the_panel_takes_predictions_from_cuda(self):
        from tests.small_suppression import outcome

        result, sent = outcome(), []
        with cuda_device():
            live = lambda place, strengths: (torch.zeros(len(result.truth), dtype=torch.long, device="cuda"), 0.5)  # noqa: E731
            line = Suppressing([result], live, sent.append)
            line.work({"result": 0, "strengths": [], "request": 1}, [], threading.Event())
        assert sent[0]["predictions"] == [0] * len(result.truth)


def test_a_boosted_ensemble_reads_what_members_leave_on_both_devices(sae, store):
    def answer(device):
        return Boosting([fresh(sae, device), fresh(sae, "cpu")])(store[:20])

    same_on_both(answer)


def test_steering_scores_take_embeddings_from_anywhere():
    table, embeddings = torch.tensor([[0, 1], [2, -1]]), torch.eye(3, 4)
    with cuda_device():
        features = steering_scores.feature_embeddings(table, embeddings.to("cuda"))
        assert devices(steering_scores.steering_score(embeddings[:2].to("cuda"), features)) == {"cpu"}


def test_default_devices_are_cuda_everywhere(store, tmp_path, sae):
    sae.save(tmp_path)
    with cuda_device():
        assert {
            load_encoder("tiny").device.type,
            load_llava("tiny").vision.device.type,
            train_sae(store, replace(config(), steps=1), progress=False).W_dec.device.type,
            load_sae(tmp_path).W_dec.device.type,
        } == {"cuda"}
