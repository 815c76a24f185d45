"""The studies: batches, epochs, first rates, decays. Nothing but numbers."""

import dataclasses

from benchmarks.batch_scaling.grid import Study

# Sequences of 16 tokens in a run of masked_lm: 300 steps of 4,096.
SEQUENCES = 300 * 4096

STUDIES = {
    # 4,096 digits; a multilayer perceptron 784-256-256-10.
    "mnist": Study(
        batches=(32, 128, 512, 2048),
        epochs=30,
        warmup_epochs=0.1,
        first_rates=dict(lamb=0.01, lars=4.0, adamw=1e-3, sgd=0.02),
    ),
    # Crops and flips; ResNet-8 whose stem sees patches of 2 x 2 pixels.
    "cifar10": Study(
        batches=(128, 512, 2048, 4096, 8192),
        epochs=16,
        warmup_epochs=0.05,
        first_rates=dict(lamb=0.01, lars=4.0, adamw=4e-3, sgd=0.1),
        variations=(
            ("lamb", "norms per filter"),
            ("lamb", "epochs x 4"),
            ("adamw", "epochs x 4"),
            ("sgd", "epochs x 4"),
        )
        + tuple(
            ("lamb", name)
            for name in (
                "warmup x 1/4",
                "warmup x 2",
                "phi in [0, 10]",
                "all adapted",
                "all decayed and adapted",
                "no decay",
                "beta_2 .99",
                "clipped to norm 1",
            )
        ),
    ),
    # An epoch is SEQUENCES; BERT tiny on books. The score is a loss.
    "masked_lm": Study(
        batches=(64, 512, 4096),
        epochs=1,
        warmup_epochs=1 / 320,
        first_rates=dict(lamb=0.005, adamw=1e-3),
        methods=(("lamb", "sqrt"), ("adamw", "sqrt")),
        higher_is_better=False,
        retune_from=-2,  # the rule's rates are known to be too high
    ),
}
# Weight decay. That of Keras' SGD is decoupled: a tenth of it in the gradient
# of momentum .9 shrinks the weights at the same pace.
DECAY = {
    "mnist": {"lamb": 0.01, "lars": 5e-4, "adamw": 0.01, "sgd": 5e-3},
    "cifar10": {"lamb": 0.01, "lars": 5e-4, "adamw": 0.05, "sgd": 5e-3},
    "masked_lm": {"lamb": 0.01, "adamw": 0.01},
}
EXCLUSIONS = {
    "mnist": ("bias",),
    "cifar10": ("batch_norm", "bias"),
    "masked_lm": ("LayerNorm", "bias"),
}
# The score: what it is called, whether higher is better is the study's.
SCORES = {
    "mnist": "test accuracy, %",
    "cifar10": "test accuracy, %",
    "masked_lm": "held-out loss, nats a masked token",
}


def study(task: str, epochs: float | None = None) -> Study:
    """The study of a task, with other epochs if these are given."""
    found = STUDIES[task]
    return dataclasses.replace(found, epochs=epochs) if epochs else found


def settings(task: str) -> dict:
    """What else a study's results depend on, for their file."""
    return {"weight_decay": DECAY[task], "exclusions": EXCLUSIONS[task]}
