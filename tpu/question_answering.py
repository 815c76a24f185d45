"""Fine-tuning on SQuAD: windows, loss, answers.

Axes: B windows, T tokens.
"""

from __future__ import annotations

import json
import os

import tensorflow as tf
from absl import flags, logging

from official_models.common.errors import InputError
from official_models.nlp.bert import heads
from official_models.nlp.bert.finetuning import answers, windows
from official_models.nlp.bert.finetuning import features as bert_features
from official_models.nlp.datasets import squad
from tpu import job

tf1 = tf.compat.v1
FLAGS = flags.FLAGS
NAMES = "start_logits", "end_logits"


class QuestionAnswering:
    """What `bert_finetuning` has to know of SQuAD.

    Args:
        tokenizer: of `wordpiece.load_tokenizer`.
        max_seq_length: T.
    """

    # Variables that a pretraining checkpoint does not have.
    new = (r"^cls/squad/output_(weights|bias)$",)

    def __init__(self, tokenizer, max_seq_length: int):
        self.tokenizer, self.max_seq_length = tokenizer, max_seq_length
        self._answered = None
        self.lengths = dict.fromkeys(
            ("unique_ids", "start_positions", "end_positions"), 1
        )

    def layers(self, config, **options):
        """The encoder and the head."""
        return heads.span_layers(config, **options)

    def logits(self, outputs, head, training: bool) -> dict[str, tf.Tensor]:
        """`start_logits` and `end_logits` [B, T]."""
        return head(outputs[0], training=training)

    def losses(self, logits: dict, features: dict) -> tf.Tensor:
        """Mean of the two, by window, [B]."""
        return tf.add_n(
            [
                tf.nn.sparse_softmax_cross_entropy_with_logits(
                    features[position][:, 0], logits[name]
                )
                for position, name in zip(
                    ("start_positions", "end_positions"), NAMES
                )
            ]
        ) / len(NAMES)

    def predictions(self, logits: dict, features: dict) -> dict:
        """The logits and, of records, `unique_ids` [B, 1]."""
        ids = {n: features[n] for n in ("unique_ids",) if n in features}
        return {**logits, **ids}

    def eval_metrics(self, logits: dict, features: dict, losses) -> tuple:
        """`eval_loss`, for a spec; `evaluate` has the official metrics."""
        tensors = {
            "losses": losses,
            "weights": features[bert_features.REAL],
        }
        return (
            lambda losses, weights: {
                "eval_loss": tf1.metrics.mean(losses, weights)
            },
            tensors,
        )

    def _windows(self, questions):
        return windows.cut(
            questions,
            self.tokenizer,
            max_seq_length=self.max_seq_length,
            doc_stride=FLAGS.doc_stride,
            max_query_length=FLAGS.max_query_length,
        )

    def write_train_records(self, path: str) -> int:
        """Writes the training set's windows; returns their number.

        A question whose answer is not in its paragraph is left out.
        """
        questions = _read(FLAGS.train_file)
        kept = [q for q in questions if q.is_impossible or _has_answer(q)]
        if not FLAGS.version_2_with_negative:
            kept = [q for q in kept if not q.is_impossible]
        if not kept:
            raise InputError(
                f"--train_file {FLAGS.train_file}: none of its "
                f"{len(questions)} questions has an answer"
            )
        rows = (
            windows.features(window, self.max_seq_length)
            for window in self._windows(kept)
        )
        return bert_features.write_features(path, rows)[0]

    def evaluate(self, estimator, input_fn_of) -> dict:
        """Answers --predict_file; writes `eval_results.json`.

        Returns:
            {"dev": {metric: value}}, the official ones, in percent.
        """
        questions, found = self._answer(estimator, input_fn_of)
        if not any(q.answers or q.is_impossible for q in questions):
            raise InputError(
                f"--predict_file {FLAGS.predict_file}: has no answers to "
                "evaluate by; use --do_predict alone"
            )
        scores = answers.score(questions, found.predictions)
        scores["global_step"] = job.first_step(FLAGS.output_dir)
        results = {"dev": scores}
        _write_json("eval_results.json", results)
        return results

    def predict(self, estimator, input_fn_of) -> None:
        """Answers --predict_file, as the published script does."""
        if not self._answered:
            self._answer(estimator, input_fn_of)

    def _answer(self, estimator, input_fn_of):
        """Questions and answers; writes the latter's three files."""
        questions = _read(FLAGS.predict_file)
        cut = list(self._windows(questions))
        path = os.path.join(FLAGS.output_dir, "eval.tf_record")
        bert_features.write_features(
            path,
            (windows.features(w, self.max_seq_length) for w in cut),
            FLAGS.predict_batch_size,
        )
        logits = {
            int(row["unique_ids"][0]): answers.Logits(
                *(row[name] for name in NAMES)
            )
            for row in job.predict(estimator, input_fn_of(path))
        }
        found = answers.answers(
            questions,
            cut,
            logits,
            n_best_size=FLAGS.n_best_size,
            max_answer_length=FLAGS.max_answer_length,
            version_2_with_negative=FLAGS.version_2_with_negative,
            null_score_diff_threshold=FLAGS.null_score_diff_threshold,
        )
        _write_json("predictions.json", found.predictions)
        _write_json("nbest_predictions.json", found.nbest)
        if FLAGS.version_2_with_negative:
            _write_json("null_odds.json", found.null_odds)
        self._answered = questions, found
        return self._answered


def _has_answer(question: squad.Question) -> bool:
    return bool(question.starts) and question.starts[0] is not None


def _read(path: str) -> list[squad.Question]:
    """The questions of a file; a warning counts what is wrong with it."""
    questions, faults = squad.read_squad(path)
    for kind, ids in faults.items():
        if ids:
            logging.warning(
                "%s: %d of %d questions have an answer %s, such as %s",
                path,
                len(ids),
                len(questions),
                {
                    "moved": "that begins elsewhere (the nearest is taken)",
                    "absent": "that is not in the paragraph",
                    "inside": "that begins or ends within a word",
                }[kind],
                ", ".join(ids[:3]),
            )
    return questions


def _write_json(name: str, content: dict) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    job.write_text(os.path.join(FLAGS.output_dir, name), text)
