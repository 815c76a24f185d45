"""An optimizer's step on torch: lists and blocks against one by one, and peers.

    .venv-torch/bin/python -m benchmarks.torch_update

In one process and one thread, in turns: tf_lamb's LAMB and LARS as they are and
variable by variable, timm's Lamb, torch's AdamW over lists and fused. Processor
seconds of a step, median and quartiles, and the ratio to fused AdamW of the
same round; to results/torch_update.json.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks import measure, optimizers, shapes
from official_models.common import interrupts
from official_models.common.errors import refuse

MODULE = "benchmarks.torch_update"
RESULT = measure.ROOT / "benchmarks" / "results" / "torch_update.json"
MODELS = {
    "BERT-tiny": lambda: shapes.bert(2, 128, ff=512),
    "BERT-mini": lambda: shapes.bert(4, 256, ff=1024),
    "BERT-base": lambda: shapes.bert(),
    "small": lambda: shapes.bert(2, 64, 1000, 256),
    "tiny": lambda: shapes.bert(1, 16, 100, 64),
}
BASE = "torch AdamW, fused"


def _ours(name, alone, sizes):
    import keras
    import torch

    import tf_lamb
    from tf_lamb import keras3_loop

    variables = [
        keras.Variable(x, name=f"v{i}")
        for i, x in enumerate(optimizers.arrays(sizes, 0))
    ]
    grads = [torch.from_numpy(g) for g in optimizers.arrays(sizes, 1)]
    optimizer = getattr(tf_lamb, name)(
        optimizers.RATE, weight_decay=optimizers.DECAY
    )
    optimizer.build(variables)
    if alone:
        loop = keras3_loop.Loop(optimizer._ops)
        optimizer._executor = lambda: loop
    return lambda: optimizer.apply(grads, variables)


def _torchs(sizes, make):
    import torch

    weights = []
    for x, g in zip(optimizers.arrays(sizes, 0), optimizers.arrays(sizes, 1)):
        weights.append(torch.nn.Parameter(torch.from_numpy(x.copy())))
        weights[-1].grad = torch.from_numpy(g)
    return make(weights).step


def _steps(sizes):
    import torch

    adamw, decay = torch.optim.AdamW, optimizers.DECAY
    return {
        BASE: _torchs(
            sizes, lambda w: adamw(w, weight_decay=decay, fused=True)
        ),
        "torch AdamW, foreach": _torchs(
            sizes, lambda w: adamw(w, weight_decay=decay, foreach=True)
        ),
        "timm Lamb": _torchs(
            sizes,
            lambda w: optimizers.timm_lamb()(
                w, optimizers.RATE, weight_decay=decay, max_grad_norm=None
            ),
        ),
        "tf_lamb.LAMB": _ours("LAMB", False, sizes),
        "tf_lamb.LAMB, one by one": _ours("LAMB", True, sizes),
        "tf_lamb.LARS": _ours("LARS", False, sizes),
        "tf_lamb.LARS, one by one": _ours("LARS", True, sizes),
    }


def race(model: str, rounds: int) -> dict:
    """{optimizer: processor seconds of a step, ratio to `BASE`}."""
    import torch

    torch.set_num_threads(1)
    steps = _steps(tuple(MODELS[model]()))
    times: dict = {name: [] for name in steps}
    with torch.no_grad():
        for k in tqdm(range(rounds + 2), desc=model, dynamic_ncols=True):
            for name, step in steps.items():
                began = time.process_time()
                step()
                if k >= 2:  # the first two make the moments
                    times[name].append(time.process_time() - began)
    base = np.array(times[BASE])
    return {
        name: {
            "seconds": measure.summary(found),
            "ratio": measure.summary(np.array(found) / base),
        }
        for name, found in times.items()
    }


def table(found: dict) -> str:
    """Markdown of `race` of some models."""
    rows = [
        [name]
        + [
            f"{1e3 * one[name]['seconds']['median']:.1f} "
            f"({one[name]['ratio']['median']:.1f})"
            for one in found.values()
        ]
        for name in next(iter(found.values()))
    ]
    return measure.table(["ms of processor (x AdamW fused)", *found], rows)


def main(arguments=None) -> None:
    """Runs the command line."""
    parser = measure.parser(MODULE, __doc__)
    parser.add_argument("--rounds", type=int, default=15, help="at least 1")
    parser.add_argument(
        "--models",
        nargs="+",
        choices=MODELS,
        default=["BERT-tiny", "BERT-mini", "BERT-base"],
    )
    parser.add_argument("--output", type=Path, default=RESULT, help="JSON")
    flags = parser.parse_args(arguments)
    if flags.rounds < 1:
        refuse(f"--rounds {flags.rounds}: expected 1 at least")
    os.environ["KERAS_BACKEND"] = "torch"
    try:
        import torch  # noqa: F401
    except ImportError:
        refuse(
            f"{sys.executable}: it has no torch; run .venv-torch/bin/python "
            f"-m {MODULE}"
        )
    found = {model: race(model, flags.rounds) for model in flags.models}
    measure.write_json(
        flags.output, {"provenance": measure.provenance(), "models": found}
    )
    print(table(found))


if __name__ == "__main__":
    interrupts.raise_again()
    main()
