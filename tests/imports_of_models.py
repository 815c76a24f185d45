"""What rooms of official_models and tpu may import: see `test_imports`."""

# Rooms of official_models and tpu, the first pattern that fits a file counts:
# pattern -> (frameworks, what of this repository it may import).
DATA_TOOLS = (
    r"official_models\.common\."
    r"(checkpoint_list|errors|files|importing|interrupts|memory|processes|pypi|"
    r"readers|record_check|records)"
)
MODEL_TOOLS = (
    DATA_TOOLS,
    r"official_models\.common\.(layer|ops|ops\..+|weights)",
)
BERT = r"official_models\.nlp\.bert\."
ROOMS = {
    r"official_models/common/ops/\w+\.py": (
        ("keras", "tensorflow", "torch"),
        MODEL_TOOLS,
    ),
    # The packages of scripts, whose imports an interrupt ends, or fail.
    r"(official_models|tpu)/__init__\.py": (
        (),
        (r"official_models\.common\.(importing|interrupts)",),
    ),
    r"(official_models|tpu)/(\w+/)+__init__\.py": ((), ()),
    # Common: no model, no data set. A run takes a tf_keras model too.
    r"official_models/common/"
    r"(checkpoint_list|errors|files|importing|interrupts|memory|processes|pypi|"
    r"readers|record_check|records)\.py": (
        ("tensorflow",),
        (DATA_TOOLS,),
    ),
    r"official_models/common/\w+\.py": (
        ("keras", "tf_keras", "tensorflow", "jax"),
        (r"official_models\.common\..+", r"tf_lamb(\..+)?"),
    ),
    # Data sets and texts: without Keras, so that a TPUEstimator can read them.
    r"official_models/nlp/(text|datasets)/\w+\.py": (
        ("tensorflow",),
        (DATA_TOOLS, r"official_models\.nlp\.(text|datasets)\..+"),
    ),
    r"official_models/vision/datasets/(\w+/)?\w+\.py": (
        ("tensorflow",),
        (DATA_TOOLS, r"official_models\.vision\.datasets\..+"),
    ),
    r"official_models/nlp/bert/pretraining/"
    r"(batches|masking|packing|pipeline|recipe|records)\.py": (
        ("tensorflow",),
        (
            DATA_TOOLS,
            r"official_models\.nlp\.text\..+",
            BERT + r"pretraining\.(batches|masking|packing|recipe|records)",
        ),
    ),
    r"official_models/nlp/bert/finetuning/(tasks/)?\w+\.py": (
        ("tensorflow",),
        (
            DATA_TOOLS,
            r"official_models\.nlp\.(text|datasets)\..+",
            BERT + r"(config|heads|finetuning\..+)",
        ),
    ),
    # By Keras' `fit`, on each backend.
    r"official_models/nlp/bert/finetuning/fit/\w+\.py": (
        ("keras",),
        (
            r"official_models\.(common|nlp)\..+",
            r"tf_lamb",
        ),
    ),
    # Processes that label documents import these: no framework.
    r"official_models/nlp/summarization/"
    r"(oracle|prepare|ranking|readers|rouge|sentences)\.py": (
        (),
        (
            DATA_TOOLS,
            r"official_models\.nlp\.summarization\."
            r"(oracle|readers|sentences)",
        ),
    ),
    # Arrays alone.
    r"official_models/nlp/summarization/copy_task\.py": (
        (),
        (r"tf_lamb\.check",),
    ),
    # Compiled updates, by one optimizer or the other.
    r"official_models/nlp/summarization/copy_training\.py": (
        ("keras", "tensorflow"),
        (
            r"official_models\.common\.errors",
            r"official_models\.nlp\.summarization\."
            r"(config|copy_task|dca|dca_losses|optimization)",
            r"tf_lamb",
        ),
    ),
    # Models: Keras through common.ops, of tf_lamb nothing but its checks.
    r"official_models/nlp/summarization/dca(_layers|_losses)?\.py": (
        ("keras",),
        (
            *MODEL_TOOLS,
            r"official_models\.nlp\.transformer\.layers",
            r"official_models\.nlp\.summarization\.(config|dca_layers)",
        ),
    ),
    r"official_models/nlp/transformer/\w+\.py": (("keras",), MODEL_TOOLS),
    r"official_models/(nlp|vision)/\w+/(pretraining/)?"
    r"(model|layers|layouts|losses|blocks|heads)\.py": (
        ("keras",),
        (
            *MODEL_TOOLS,
            r"official_models\.nlp\.transformer\..+",
            BERT + r"(config|heads|model)",
            r"official_models\.nlp\.albert\.(config|model)",
            r"official_models\.vision\.resnet\.(blocks|layers)",
            r"official_models\.vision\.few_shot\.losses",
            r"official_models\.nlp\.summarization\.(config|layers)",
            r"official_models\.vision\.batch_norm\.layers",
            r"tf_lamb\.check",
        ),
    ),
    r"official_models/nlp/\w+/(config|huggingface|hub)\.py": (
        ("keras", "tensorflow"),
        (
            *MODEL_TOOLS,
            r"official_models\.nlp\.transformer\..+",
            BERT + r"(config|model|huggingface)",
            r"official_models\.nlp\.albert\.model",
            r"official_models\.nlp\.checkpoint\.(opening|source)",
            r"tf_lamb\.check",
        ),
    ),
    # Checkpoints: of models, not of their training.
    r"official_models/nlp/checkpoint/\w+\.py": (
        ("keras", "tensorflow"),
        (
            r"official_models\.common\..+",
            r"official_models\.nlp\.text\..+",
            r"official_models\.nlp\.checkpoint(\..+)?",
            r"official_models\.nlp\.(bert|albert)\."
            r"(config|heads|huggingface|model)",
        ),
    ),
    # For other models too: a regularizer and a callback.
    r"official_models/vision/batch_norm/gamma_decay\.py": (
        ("keras",),
        (r"official_models\.vision\.batch_norm\.layers", r"tf_lamb\.check"),
    ),
    # What a training of its own is given, checked.
    r"official_models/nlp/term_weighting/learning\.py": (
        ("keras",),
        (
            r"official_models\.nlp\.term_weighting\.(metrics|model|statistics)",
            r"tf_lamb(\.check)?",
        ),
    ),
    # Closed forms, by NumPy and SciPy.
    r"official_models/vision/batch_norm/(theory|teacher_student)\.py": (
        (),
        (DATA_TOOLS, r"official_models\.vision\.batch_norm\.theory"),
    ),
    # Scripts and what only they use: anything but another script.
    r"official_models/(nlp|vision)/\w+/(pretraining/)?\w+\.py": (
        ("keras", "tensorflow", "tf_keras"),
        (
            r"official_models\.(common|nlp|vision)\..+",
            r"tf_lamb(\.(callbacks|check|keras2|schedules|multi_worker))?",
        ),
    ),
    # Reinforcement learning: arrays alone; then what computes and the scripts.
    r"official_models/rl/dqn_lambda/(environments|replay|returns)\.py": (
        (),
        (DATA_TOOLS,),
    ),
    r"official_models/rl/dqn_lambda/(agent|evaluation|learning|networks)\.py": (
        ("keras", "tensorflow"),
        (DATA_TOOLS, r"official_models\.rl\.dqn_lambda\..+"),
    ),
    # Actors' processes import no framework; the one that trains does.
    r"official_models/rl/dqn_lambda/a3c/(actor|actors|policy)\.py": (
        (),
        (
            DATA_TOOLS,
            r"official_models\.rl\.dqn_lambda\.(environments|returns)",
            r"official_models\.rl\.dqn_lambda\.a3c\.(actor|policy)",
        ),
    ),
    r"official_models/rl/dqn_lambda/(a3c/)?\w+\.py": (
        ("keras", "tensorflow"),
        (
            r"official_models\.common\..+",
            r"official_models\.rl\.dqn_lambda\..+",
            r"tf_lamb\.callbacks",
        ),
    ),
    # The planner: Keras and JAX, no TensorFlow; models, no data.
    r"tpu/plan/\w+\.py": (
        ("keras", "jax"),
        (
            r"official_models\..+\.(config|layouts|losses|model|model_parallel)",
            DATA_TOOLS,
            r"tf_lamb(\.sharding)?",
            r"tpu\.plan(\..+)?",
        ),
    ),
    r"tpu/\w+\.py": (
        ("tensorflow",),
        (
            r"official_models\..+",
            r"tf_lamb\.(v1|schedules|exclusion|hyperparameters|rules|arithmetic|schedule_checks"
            r"|wrapped)",
            r"tpu\.\w+",
        ),
    ),
}
