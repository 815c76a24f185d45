"""The flags that all TPUEstimator jobs share, and what they mean together."""

import importlib.util

from absl import flags

from official_models.common.errors import InputError
from tf_lamb import arithmetic, hyperparameters, schedule_checks

FLAGS = flags.FLAGS
_LARS_FORMS = hyperparameters.LARS_FORMS
OPTIMIZERS = ("lamb", "lars", "adamw", "momentum")


def define_flags(
    *,
    folder: str,
    train_batch_size: int,
    eval_batch_size: int,
    learning_rate: float,
    weight_decay: float,
    exclusions: tuple[str, ...],
    global_clipnorm: float,
) -> None:
    """Defines the flags, with a script's own defaults.

    Args:
        folder: what the folder of the run is called in the published script,
            "output_dir" (BERT) or "model_dir" (ResNet).
        train_batch_size: examples an update, over all cores.
        eval_batch_size: examples a batch of the evaluation, over all cores.
        learning_rate: peak rate.
        weight_decay: of the variables that no exclusion matches.
        exclusions: regexes of variables that neither decay nor adapt.
        global_clipnorm: 0 for no clipping.
    """
    flags.DEFINE_string(
        folder,
        None,
        "Folder of checkpoints and summaries, gs:// on a TPU. A run that is "
        "there already is resumed.",
        required=True,
    )
    for name, size in (
        ("train_batch_size", train_batch_size),
        ("eval_batch_size", eval_batch_size),
    ):
        flags.DEFINE_integer(
            name, size, "Examples of a batch, over all cores.", 1
        )
    _define_tpu_flags()
    _define_loop_flags()
    flags.DEFINE_enum("optimizer", "lamb", list(OPTIMIZERS), "The optimizer.")
    flags.DEFINE_float(
        "learning_rate", learning_rate, "Peak learning rate.", 0.0
    )
    flags.DEFINE_float("weight_decay", weight_decay, "Weight decay.", 0.0)
    flags.DEFINE_list(
        "exclude_from_weight_decay",
        list(exclusions),
        "Regexes of the variables that get no weight decay, or "
        "biases_and_norms: by kind, whatever they are called.",
    )
    flags.DEFINE_float(
        "global_clipnorm",
        global_clipnorm,
        "Largest global norm of the gradient of the whole batch; 0 for no "
        "clipping.",
        0.0,
    )
    _define_schedule_flags()
    _define_rule_flags()


def _define_tpu_flags() -> None:
    flags.DEFINE_boolean("use_tpu", False, "Run on a TPU, not on this machine.")
    flags.DEFINE_string(
        "tpu_name",
        None,
        "Name or grpc:// address of the TPU; 'local' is one in this machine.",
    )
    flags.DEFINE_alias("tpu", "tpu_name")
    flags.DEFINE_string(
        "tpu_zone", None, "Zone of the TPU; this VM's if absent."
    )
    flags.DEFINE_string(
        "gcp_project", None, "Project of the TPU; this VM's if absent."
    )
    flags.DEFINE_string("master", None, "Address of a TensorFlow master.")
    flags.DEFINE_integer("num_tpu_cores", 8, "Cores of the TPU.", 1)
    flags.DEFINE_enum(
        "precision",
        "float32",
        ["float32", "bfloat16"],
        "Dtype of activations; variables and the loss are float32.",
    )


def _define_loop_flags() -> None:
    flags.DEFINE_integer(
        "iterations_per_loop",
        1000,
        "Updates that a TPU makes between two calls from the host.",
        1,
    )
    flags.DEFINE_integer(
        "save_checkpoints_steps", 1000, "Updates between checkpoints.", 1
    )
    flags.DEFINE_integer(
        "keep_checkpoint_max", 5, "Checkpoints that are kept.", 1
    )
    flags.DEFINE_integer(
        "log_every",
        0,
        "Updates between summaries; 0 is --iterations_per_loop.",
        0,
    )
    flags.DEFINE_integer(
        "seed", 1, "Seed of weights, order and dropout.", 0, 2**32 - 1
    )
    flags.DEFINE_string(
        "export_dir",
        None,
        "Folder in which a SavedModel is written at the end.",
    )


def _define_schedule_flags() -> None:
    flags.DEFINE_enum(
        "decay_from",
        "warmup_end",
        list(schedule_checks.DECAY_FROM),
        "Where the decay begins; 'start' is that of the published BERT.",
    )
    flags.DEFINE_float("power", 1.0, "Exponent of the decay; 1 is linear.")
    flags.DEFINE_float("end_learning_rate", 0.0, "Rate after the last step.")


def _define_rule_flags() -> None:
    flags.DEFINE_list(
        "exclude_from_layer_adaptation",
        None,
        "Regexes of the variables whose trust ratio is 1 (LAMB, LARS), or "
        "biases_and_norms; those of --exclude_from_weight_decay if absent.",
    )
    flags.DEFINE_float(
        "beta_1", 0.9, "Decay of the first moment (LAMB, AdamW)."
    )
    flags.DEFINE_float(
        "beta_2", 0.999, "Decay of the second moment (LAMB, AdamW)."
    )
    flags.DEFINE_float(
        "epsilon", 1e-6, "Added to the root of the second moment (LAMB, AdamW)."
    )
    flags.DEFINE_boolean(
        "bias_correction", True, "Bias correction of LAMB's moments."
    )
    flags.DEFINE_float(
        "momentum", 0.9, "Momentum of LARS and of --optimizer momentum."
    )
    flags.DEFINE_boolean(
        "nesterov", False, "Nesterov momentum (LARS, momentum)."
    )
    flags.DEFINE_float(
        "trust_coefficient", 0.001, "Factor of LARS' trust ratio."
    )
    flags.DEFINE_enum(
        "form",
        None,
        [*{**hyperparameters.LAMB_FORMS, **dict.fromkeys(_LARS_FORMS)}],
        "Form of LAMB, by default paper, or of LARS, by default "
        f"{_LARS_FORMS[0]}; LAMB's with its own epsilon and bias correction, "
        "where the flags are absent, and the decay and clipping of the flags.",
    )
    flags.DEFINE_boolean(
        "cautious",
        False,
        "Only elements whose direction has the gradient's sign move (LAMB).",
    )
    flags.DEFINE_float(
        "clip_by_unit",
        0.0,
        "Limit of each unit's gradient, as a share of the norm of its weights "
        "(LAMB, LARS); 0: none.",
    )
    flags.DEFINE_enum(
        "norm",
        "l2",
        list(arithmetic.NORMS),
        "Norm in the trust ratio (LAMB, LARS).",
    )
    flags.DEFINE_enum(
        "moment_dtype",
        "float32",
        list(hyperparameters.MOMENT_DTYPES[1:]),
        "Dtype in which LAMB and LARS store their moments.",
    )


def check_flags(*batch_sizes: str) -> None:
    """Refuses flags that contradict each other.

    Args:
        batch_sizes: names of the batch sizes in use; each has to be a
            multiple of the cores.

    Raises:
        InputError: names the flag; or there is no TPUEstimator.
    """
    if importlib.util.find_spec("tensorflow_estimator") is None:
        raise InputError(
            "TPUEstimator: tensorflow_estimator is not installed; these jobs "
            "need TensorFlow up to 2.15 (make .venv-tf215), later ones have "
            "no Estimator: use official_models' scripts with --strategy tpu"
        )
    if not FLAGS.use_tpu:
        for name in ("tpu_name", "tpu_zone", "gcp_project"):
            if FLAGS[name].value:
                raise InputError(
                    f"--{name} {FLAGS[name].value}: for --use_tpu only; add "
                    "it, or leave this flag out"
                )
        return
    if bool(FLAGS.tpu_name) == bool(FLAGS.master):
        raise InputError(
            "--use_tpu: expected either --tpu_name or --master, to say which "
            "TPU"
        )
    cores = FLAGS.num_tpu_cores
    for name in batch_sizes:
        if FLAGS[name].value % cores:
            raise InputError(
                f"--{name} {FLAGS[name].value}: expected a multiple of the "
                f"--num_tpu_cores {cores}"
            )
