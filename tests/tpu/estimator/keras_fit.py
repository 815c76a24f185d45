"""The Keras side of a comparison: LAMB by Keras 3 on the job's records.

    python -m tests.tpu.estimator.keras_fit FOLDER STEPS CONFIG CHECKPOINT

Trains the BERT or ALBERT of this configuration from this checkpoint on the
batches that `tpu.bert_pretraining` reads, and prints the loss of each step as
JSON.
"""

import json
import sys
from pathlib import Path

import tensorflow as tf

import tf_lamb
from official_models.nlp.albert.config import AlbertConfig, read_either
from official_models.nlp.albert.model import albert_pretrainer
from official_models.nlp.bert import model
from official_models.nlp.bert.pretraining import records
from official_models.nlp.bert.pretraining.losses import pretraining_losses
from tests.tpu.estimator.bert_job import P, T, V


def main(folder: Path, steps: int, config: str, checkpoint: str) -> None:
    tf.random.set_seed(1)  # the order of records is also a function of it
    config = read_either(str(folder / config))
    if isinstance(config, AlbertConfig):
        bert, pair = albert_pretrainer(config), "sentence_order"
    else:
        bert, pair = model.bert_pretrainer(config), "next_sentence"
    for variable in bert.trainable_variables:
        value = tf.train.load_variable(str(folder / checkpoint), variable.path)
        variable.assign(value)
    bert.compile(
        tf_lamb.LAMB(
            tf_lamb.WarmupPolynomial(0.02, steps, 4),
            weight_decay=0.01,
            exclude_from_weight_decay=("LayerNorm", "bias"),
            global_clipnorm=1.0,
        ),
        loss=pretraining_losses(pair),
        jit_compile=False,
    )
    batches = records.read_records(
        [folder / "records"],
        batch_size=8,
        max_seq_length=T,
        max_predictions=P,
        vocab_size=V,
        first_step=0,
        last_step=steps,
        seed=1,
    )
    losses = []
    for x, *of_heads in batches:
        for values in of_heads:
            values[pair] = values.pop("next_sentence")
        bert.reset_metrics()
        losses.append(
            float(bert.train_on_batch(x, *of_heads, return_dict=True)["loss"])
        )
    print(json.dumps(losses))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
