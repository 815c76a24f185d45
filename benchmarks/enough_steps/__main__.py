r"""Accuracy against the batch where the largest batch has enough updates.

    KERAS_BACKEND=jax python -m benchmarks.enough_steps --hours 1
    KERAS_BACKEND=jax python -m benchmarks.enough_steps --optimizers lamb lars

Fashion-MNIST at 14 x 14 pixels and a small perceptron, so that 2,048 examples
an update still have 1,508 updates. Seven optimizers, each with seven rates at
the smallest batch and seven at 2,048; the rate follows the batch by the square
root, for momentum and LARS by the batch itself too. All runs of an optimizer at
a batch are one JAX program. Each of these is a file in --runs, so that the same
command goes on where it was stopped; two commands with different --optimizers
share the work. The table is written when all optimizers are done.
"""

import sys
from pathlib import Path

import keras
from tqdm import tqdm

from benchmarks import measure
from benchmarks.enough_steps import data, optimizers, plan, report
from official_models.common import files, interrupts
from official_models.common.errors import InputError
from official_models.common.store import Store, complete

MODULE = "benchmarks.enough_steps"
RESULTS = measure.ROOT / "benchmarks" / "results" / "enough_steps.json"


def _arguments(argv):
    parser = measure.parser(MODULE, __doc__)
    parser.add_argument(
        "--data_dir",
        default=data.DEBIAN,
        help="Fashion-MNIST's four files; Debian: dataset-fashion-mnist",
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("runs/enough_steps"), help="its parts"
    )
    parser.add_argument(
        "--hours", type=float, help="no part begins after these"
    )
    parser.add_argument(
        "--optimizers",
        nargs="+",
        choices=list(optimizers.NAMES),
        default=list(optimizers.NAMES),
        help="default: all, then the table",
    )
    parser.add_argument(
        "--output", type=Path, default=RESULTS, help="JSON; a PNG beside it"
    )
    return parser.parse_args(argv)


def _study(args, bar) -> dict:
    def after(part):
        bar.set_postfix_str(part)
        bar.update()

    store = Store(args.runs, args.hours)
    study = plan.Study(store, data.load(args.data_dir), plan.WHOLE, after)
    bar.total = study.epochs_of(args.optimizers)
    found = {name: study.of(name) for name in args.optimizers}
    noise = study.noise(found["lamb"]) if "lamb" in found else None
    return {"found": found, "noise": noise}


def main(argv=None) -> int:
    args = _arguments(argv)
    try:
        if keras.backend.backend() != "jax":
            raise InputError(
                f"Keras' backend is {keras.backend.backend()}: this study is "
                "one of JAX; set KERAS_BACKEND=jax"
            )
        with tqdm(unit="epoch", dynamic_ncols=True) as bar:
            study = complete(lambda: _study(args, bar), args.runs)
        if study is None or set(args.optimizers) != {*optimizers.NAMES}:
            return 0
        said = report.figures(study["found"], plan.LARGEST)
        said["noise"] = study["noise"]
        files.write_json(
            args.output, {"provenance": measure.provenance(), **said}, indent=1
        )
        report.draw(said, args.output.with_suffix(".png"))
        print(report.tables(said))
        print(f"noise scale {study['noise']}")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"stopped; {args.runs} has what is done", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    interrupts.raise_again()
    sys.exit(main())
