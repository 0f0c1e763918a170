"""widgets.SuppressionPanel: what the page holds of every subset, and how a kernel behind it answers."""

import base64
import itertools
import json
import math
import re
import threading

import numpy as np
import pytest

from experiments.disentanglement.protocol import SubsetResults, with_informative_examples
from tests.small_suppression import COUNT, PEOPLE, outcome, outcomes, pictures
from widgets import SuppressionPanel
from widgets.suppression_panel import Suppressing


def panel(results=None, **options) -> SuppressionPanel:
    results = results or outcomes()
    return SuppressionPanel(results, pictures(results), **options)


class TestSubsets:
    def test_bit_i_of_a_row_says_that_feature_i_is_suppressed(self):
        result = outcome(n_features=3)
        ids = [feature["id"] for feature in result.features]
        for chosen in itertools.product([False, True], repeat=3):
            suppressed = [number for number, on in zip(ids, chosen, strict=True) if on]
            assert result.subset(suppressed) == chosen[0] + 2 * chosen[1] + 4 * chosen[2]

    def test_with_nothing_suppressed_it_is_the_first_row(self):
        assert outcome().subset([]) == 0

    def test_a_feature_of_another_layer_is_an_error(self):
        with pytest.raises(ValueError, match=r"feature 7 is not among those of this result: choose from \[0, 10, 20\]"):
            outcome().subset([7])

    @pytest.mark.parametrize(
        ("changed", "sentence"),
        [
            (
                {"predictions": np.zeros((4, COUNT), int)},
                r"predictions is \(4, 120\): with 3 features and 120 pictures",
            ),
            ({"predictions": np.full((8, COUNT), 2)}, "predictions goes from 2 to 2: there are 2 classes"),
            ({"predictions": np.zeros((8, COUNT))}, "predictions holds float64: give whole numbers"),
            ({"truth": np.full(COUNT, -1)}, "truth goes from -1 to -1: there are 2 classes"),
            ({"group": np.full(COUNT, 4)}, "group goes from 4 to 4: there are 4 groups"),
            ({"group": np.zeros(5, int)}, r"group is \(5,\)"),
            ({"ordinary": np.full(8, 87.0)}, "give accuracies as fractions"),
            ({"examples": [COUNT]}, "there is no picture 120 to show"),
            ({"features": []}, "there are 0 features: give 1 to 8"),
            ({"features": [{"id": 1}]}, "a feature lacks name"),
            ({"features": [{"id": 1, "name": "hat"}] * 2}, "a feature is there twice"),
        ],
    )
    def test_parts_that_do_not_fit_are_told_in_one_sentence(self, changed, sentence):
        with pytest.raises(ValueError, match=sentence):
            outcome(**changed)


class TestExamples:
    """Pictures 0 to 5 of group 0 and 6 to 11 of group 1; two sites."""

    def results(self) -> list[SubsetResults]:
        some = {"truth": [0] * 12, "group": [0] * 6 + [1] * 6, "features": [{"id": 0, "name": "hat"}]}
        some |= {"classes": ["dark", "blond"], "groups": ["man", "woman"], "ordinary": [1, 1], "examples": []}
        changed = {"4.resid_post": [2, 8, 9], "6.resid_post": [2, 8]}
        rows = {site: [int(i in those) for i in range(12)] for site, those in changed.items()}
        return [SubsetResults("hair", site, predictions=[[0] * 12, row], **some) for site, row in rows.items()]

    def test_half_of_each_group_is_what_changes_most_and_half_what_does_not(self):
        (first, _) = with_informative_examples(self.results(), 4)
        assert [i for i in first.examples if i in (2, 8)] == [2, 8]
        assert [int(first.group[i]) for i in first.examples] == [0, 0, 1, 1]
        assert 9 not in first.examples

    def test_they_are_the_same_at_all_sites_of_a_task(self):
        one, other = with_informative_examples(self.results(), 6)
        assert one.examples == other.examples
        assert {2, 8, 9} < set(one.examples)

    def test_a_small_group_gives_what_it_has_once(self):
        (first, _) = with_informative_examples(self.results(), 40)
        assert sorted(first.examples) == list(range(12))


class TestWhatThePageHolds:
    def test_every_prediction_of_every_subset(self):
        results = outcomes()
        widget = panel(results)
        for number, result in enumerate(results):
            np.testing.assert_array_equal(widget.stored_predictions(number), result.predictions)

    def test_predictions_that_seldom_change_take_a_small_part_of_their_size(self):
        predictions = np.zeros((256, COUNT), int)
        predictions[128:, :10] = 1
        widget = panel([outcome(n_features=8, predictions=predictions, ordinary=np.full(256, 0.5))])
        assert len(widget.numbers) < predictions.size / 20

    def test_a_picture_that_two_layers_show_is_stored_once(self):
        widget = panel()
        assert widget.meta["results"][0]["sprites"] == widget.meta["results"][1]["sprites"]
        assert len({place for result in widget.meta["results"] for place in result["sprites"]}) == 12

    def test_what_is_known_of_features(self):
        first = panel().meta["results"][0]["features"][0]
        assert first == {"id": 0, "name": "f0", "note": "", "chosen": True}

    def test_state_size_is_what_a_saved_notebook_holds(self):
        widget = panel()
        binary = sum(len(base64.b64encode(getattr(widget, name))) for name in ("numbers", "sprites"))
        assert binary < widget.state_size < binary + len(json.dumps(widget.meta)) + 1.2 * len(widget._esm) + 20_000

    def test_its_state_asks_for_nothing_outside(self):
        state = panel().get_state()
        text = json.dumps({name: value for name, value in state.items() if not isinstance(value, bytes)})
        assert "http" not in text.replace("http://www.w3.org/2000/svg", "")  # a name space, which nobody fetches


class TestWhatDoesNotFit:
    def test_no_results(self):
        with pytest.raises(ValueError, match="results is empty"):
            SuppressionPanel([], [])

    def test_another_number_of_pictures_than_examples(self):
        with pytest.raises(ValueError, match=f"{PEOPLE}, 4.resid_post shows 6 examples: 1 pictures are given"):
            SuppressionPanel([outcome()], [pictures([outcome()])[0][:1]])

    def test_no_pictures_for_a_result(self):
        with pytest.raises(ValueError, match="pictures has 0 entries for 1 results"):
            SuppressionPanel([outcome()], [])

    def test_the_same_task_and_layer_twice(self):
        with pytest.raises(ValueError, match="a task and layer are there twice"):
            panel([outcome(), outcome(seed=1)])


class TestLive:
    """What a page hears when it asks a kernel for strengths."""

    def heard(self, live, *requests) -> list[dict]:
        """The messages that go to the page, after as many as there are requests have been answered."""
        told, news = [], threading.Condition()

        def send(message):
            with news:
                told.append(message)
                news.notify_all()

        line = Suppressing(outcomes(), live, send)
        for request in requests:
            line.receive(request, [])
        with news:
            assert news.wait_for(lambda: len(told) >= len(requests), timeout=20), told
        return told

    def asked(self, request=1, result=1, strengths=((10, 1.5),)) -> dict:
        return {"kind": "answer", "request": request, "result": result, "strengths": [list(pair) for pair in strengths]}

    def test_the_function_is_given_the_result_and_the_strengths(self):
        calls = []

        def live(result, strengths):
            calls.append((result, strengths))
            return np.arange(COUNT) % 2

        told = self.heard(live, self.asked())
        assert calls == [(1, {10: 1.5})]
        expected = [i % 2 for i in range(COUNT)]
        assert told == [{"kind": "done", "request": 1, "predictions": expected, "ordinary": None}]

    def test_accuracy_on_ordinary_pictures_is_told_where_it_is_computed(self):
        (told,) = self.heard(lambda result, strengths: (np.zeros(COUNT, int), 0.75), self.asked())
        assert told["ordinary"] == 0.75

    def test_a_ping_is_answered(self):
        assert self.heard(None, {"kind": "ping"}) == [{"kind": "pong"}]

    def test_of_two_quick_requests_the_older_is_not_answered(self):
        go = threading.Event()

        def live(result, strengths):
            go.wait(10)
            return np.zeros(COUNT, int)

        threading.Timer(0.2, go.set).start()
        told = self.heard(live, self.asked(1), self.asked(2))
        assert [(message["kind"], message["request"]) for message in told] == [("stopped", 1), ("done", 2)]

    @pytest.mark.parametrize(
        ("live", "sentence"),
        [
            (lambda result, strengths: np.zeros(3, int), r"live returned \(3,\): give one prediction for each of 120"),
            (lambda result, strengths: np.full(COUNT, 2), "live returned class 2: there are 2 classes"),
            (lambda result, strengths: 1 / 0, "ZeroDivisionError: division by zero"),
        ],
    )
    def test_what_goes_wrong_is_told_in_one_sentence(self, live, sentence):
        (told,) = self.heard(live, self.asked())
        assert told["kind"] == "error"
        assert re.search(sentence, told["text"])

    @pytest.mark.parametrize(
        ("asked", "sentence"),
        [
            ({"result": 3}, "The panel has results 0 to 2, and no 3."),
            ({"result": -1}, "The panel has results 0 to 2, and no -1."),
            ({"result": "x" * 10_000}, "The panel has results 0 to 2, and no 'xxx"),
            ({"strengths": [(10, 1.0)] * 3}, "strengths of 2 features, not of 3"),
            ({"strengths": [(11, 1.0)]}, "no feature 11 to suppress"),
            ({"strengths": [(10, math.nan)]}, "by strengths of -100 to 100"),
            ({"strengths": [(10, 1e30)]}, "by strengths of -100 to 100"),
        ],
    )
    def test_what_a_panel_cannot_ask_for_is_refused_and_computes_nothing(self, asked, sentence):
        calls = []
        (told,) = self.heard(lambda *given: calls.append(given), self.asked(**asked))
        assert told["kind"] == "error"
        assert sentence in told["text"]
        assert len(told["text"]) < 300
        assert calls == []
