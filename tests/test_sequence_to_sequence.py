"""Translation and summarization: what they are scored by, and with which signature."""

import json
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

from bertram.tasks.sequence_to_sequence import Summarization, Translation

HYPOTHESES = ["The cat sat on the mat.", "a Dog was running", ""]
REFERENCES = [["The cat sat on a mat."], ["A dog was running off."], ["Nothing."]]
SEVERAL = [
    ["The cat sat on a mat.", "On the mat sat the cat."],
    ["A dog was running off.", "a dog"],
    ["No.", "Nothing."],
]


@pytest.fixture(params=[Translation, Summarization])
def task(request):
    return request.param()


@pytest.mark.parametrize(
    ("references", "words"),
    [
        (["The cat sat on the mat.", "a dog", "猫坐在垫子上。"], "13a"),
        (["今天天气很好。", "我们去公园。", "a dog"], "zh"),
        (["今日は天気がいい。", "公園へ行きます。"], "char"),
        (["오늘은 날씨가 좋다."], "char"),
        (["วันนี้อากาศดี", "เราไปสวนสาธารณะ"], "char"),
    ],
)
def test_references_without_spaces_are_cut_to_words(references, words):
    """13a would call each of them one word, so that BLEU is 0 for all that is not the same to the letter."""
    found, _ = Translation().scores([*references[:-1], references[-1][:-2]], [[text] for text in references])
    assert f"|tok:{words}|" in found.signature
    assert found.value > 50 or words == "13a"


class TestEveryTask:
    def test_says_what_it_is_and_comes_back(self, task):
        written = json.loads(json.dumps(task.to_dict()))
        assert written == {"name": task.name}
        assert type(task).from_dict(written) == task

    def test_one_answer_a_text(self, task):
        answers = task.answers(["a", ""], [-0.5, -1.0])
        assert answers == [{"text": "a", "score": -0.5}, {"text": "", "score": -1.0}]
        with pytest.raises(ValueError, match="shorter"):
            task.answers(["a", "b"], [-0.5])

    def test_right_texts_score_100_and_name_the_primary_metric_first(self, task):
        texts = ["The cat sat on the mat.", "A dog was running off."]
        scores = task.scores(texts, [[text] for text in texts])
        assert scores[0].metric == task.metric
        for score in scores:
            assert score.value == pytest.approx(100)
            assert score.signature.lower().startswith(f"{score.metric}|")
            assert score.signature.endswith("|n:2")

    def test_empty_texts_score_0(self, task):
        assert {score.value for score in task.scores(["", ""], [["a b"], ["c"]])} == {0.0}

    def test_another_right_text_never_harms(self, task):
        one, more = task.scores(HYPOTHESES, REFERENCES), task.scores(HYPOTHESES, SEVERAL)
        assert all(a.value <= b.value for a, b in zip(one, more, strict=True))
        assert one[0].value < more[0].value
        assert {score.signature.count("|nrefs:1|") for score in one} == {1}
        assert {score.signature.count("|nrefs:2|") for score in more} == {1}

    def test_numbers_of_right_texts_may_differ(self, task):
        """A text with one right one scores as if that were given twice."""
        some = [SEVERAL[0], *REFERENCES[1:]]
        doubled = [SEVERAL[0], *(texts * 2 for texts in REFERENCES[1:])]
        found = task.scores(HYPOTHESES, some)
        assert [s.value for s in found] == pytest.approx([s.value for s in task.scores(HYPOTHESES, doubled)])
        assert {score.signature.count("|nrefs:var|") for score in found} == {1}


class TestTranslation:
    @pytest.mark.parametrize("references", [REFERENCES, SEVERAL])
    def test_scores_are_those_of_sacrebleu(self, references):
        bleu, chrf = Translation().scores(HYPOTHESES, references)
        ranked = [list(texts) for texts in zip(*references, strict=True)]
        for score, metric in ((bleu, BLEU(tokenize="13a", lowercase=False)), (chrf, CHRF(char_order=6, word_order=0))):
            published = metric.corpus_score(HYPOTHESES, ranked)
            assert score.value == published.score
            line = published.format(signature=metric.get_signature().format())
            assert line.startswith(score.signature.removesuffix("|n:3") + " = ")

    def test_decomposed_references_are_those_that_models_write(self):
        """Which is composed; the signature says so, as figures of sacrebleu's own differ."""
        texts = ["Die Männer grüßen zwei Mädchen im Gebüsch.", "한국어 문장을 그대로 다시 씁니다."]
        references = [[unicodedata.normalize("NFD", text)] for text in texts]
        for task in (Translation(), Summarization()):
            for found in task.scores(texts, references):
                assert found.value == pytest.approx(100.0)
                assert "|norm:nfc|" in found.signature

    def test_signatures(self):
        bleu, chrf = Translation().scores(HYPOTHESES, REFERENCES)
        assert (bleu.metric, chrf.metric) == ("bleu", "chrf2")
        assert bleu.signature.startswith("BLEU|nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
        assert chrf.signature.startswith("chrF2|nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")

    def test_without_sacrebleu_it_says_what_brings_it(self):
        program = """
import sys
sys.modules.update(dict.fromkeys(["sacrebleu", "torch"]))
from bertram.errors import BadInput
from bertram.tasks.sequence_to_sequence import Summarization, Translation
print(Summarization().scores(["a"], [["a"]])[0].value)
try:
    Translation().scores(["a"], [["a"]])
except BadInput as error:
    print(error)
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        expected = "sacrebleu is not installed; it comes with: pip install 'bertram[train]'"
        assert done.stdout.splitlines()[1:] == [expected]


class TestSummarization:
    @pytest.mark.parametrize("references", [REFERENCES, SEVERAL])
    def test_scores_are_means_of_those_of_rouge_score(self, references):
        names = ["rouge1", "rouge2", "rougeL"]
        scorer = RougeScorer(names, use_stemmer=True)
        rows = [scorer.score_multi(texts, text) for text, texts in zip(HYPOTHESES, references, strict=True)]
        expected = [100 * np.mean([row[name].fmeasure for row in rows]) for name in names]
        mean, *kinds = Summarization().scores(HYPOTHESES, references)
        assert [score.value for score in kinds] == pytest.approx(expected, abs=1e-10)
        assert [score.metric for score in kinds] == ["rouge-1", "rouge-2", "rouge-l"]
        assert mean.value == pytest.approx(np.mean(expected), abs=1e-10)

    def test_signature(self):
        (score, *_) = Summarization().scores(HYPOTHESES, REFERENCES)
        assert score.signature == "rouge|f1|as:rouge-score-0.1.2|stemmer:porter|nrefs:1|n:3"

    def test_chinese_is_scored_by_character_and_the_signature_says_so(self):
        score, *kinds = Summarization().scores(["好电影", "a film"], [["电影"], ["a film"]])
        # Of 3 characters and 2, both of the latter; of 2 pairs and 1, that one; the other text is right.
        assert [each.value for each in kinds] == pytest.approx([90, 100 * (1 + 2 / 3) / 2, 90])
        assert score.signature == "rouge|f1|as:rouge-score-0.1.2|asian:characters|stemmer:porter|nrefs:1|n:2"
