r"""Images a second of small networks' training steps, against a matrix product.

    python -m benchmarks.batch_scaling.speed \\
        --output benchmarks/results/batch_scaling/speed.json

What chose the network of the CIFAR-10 study. A step is forward, backward and
SGD on a batch of 128 random images, by TensorFlow's graph or by XLA, in
float32 or mixed bfloat16; its work is counted as three times the forward
convolutions' and the last layer's multiplications and additions. Each case
runs in as many processes of one thread as there are cores, as the study's
workers do, the last network also in one of all threads; the matrix product
(1,024 x 1,024) beside it in the same way. Takes three minutes on two
cores.
"""

import json
import os
import subprocess
import sys
import time

from benchmarks import measure

MODULE = "benchmarks.batch_scaling.speed"
BATCH = 128
SECONDS = 2.0

# (network, width, patch)
NETWORKS = (
    ("davidnet", 64, 1),
    ("resnet20_cifar", 16, 1),
    ("resnet14_cifar", 16, 1),
    ("resnet8_cifar", 16, 1),
    ("resnet8_cifar", 32, 2),
    ("resnet8_cifar", 16, 2),
)
# (dtype policy, compiled by XLA)
WAYS = (
    ("float32", False),
    ("mixed_bfloat16", False),
    ("float32", True),
)


def _flops(model, size):
    """Multiplications and additions of a forward pass, for one image."""
    import tensorflow as tf

    spec = tf.TensorSpec((1, size, size, 3))
    graph = tf.function(lambda x: model(x, training=False))
    total = 0
    for op in graph.get_concrete_function(spec).graph.get_operations():
        if op.type == "Conv2D":
            kernel = op.inputs[1].shape
            pixels = op.outputs[0].shape[1] * op.outputs[0].shape[2]
            total += 2 * pixels * kernel.num_elements()
        elif op.type == "MatMul":
            total += 2 * op.inputs[1].shape.num_elements()
    return total


def _rate(run, units):
    """Units a second, after a warm-up."""
    for _ in range(3):
        run()
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < SECONDS:
        run()
        count += 1
    return units * count / (time.perf_counter() - began)


def run_job(job):
    """Measures one case in this process."""
    import keras
    import tensorflow as tf

    if job["network"] == "matmul":
        dtype = job["dtype"].removeprefix("mixed_")
        a = tf.cast(tf.random.normal((1024, 1024)), dtype)
        product = tf.function(lambda: tf.reduce_sum(tf.matmul(a, a)))
        flops = 2 * 1024**3
        return {"gflops": _rate(lambda: product().numpy(), flops) / 1e9}
    from official_models.vision.resnet import model as resnet

    model = resnet.build(
        job["network"],
        image_size=32,
        num_classes=10,
        width=job["width"],
        patch=job["patch"],
        dtype=job["dtype"],
    )
    variables = model.trainable_variables
    optimizer = keras.optimizers.SGD(0.01)
    optimizer.build(variables)
    images = tf.random.normal((BATCH, 32, 32, 3))
    labels = tf.random.uniform((BATCH,), 0, 10, tf.int32)

    @tf.function(autograph=False, jit_compile=job["compiled"])
    def step():
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            )
        optimizer.apply(tape.gradient(loss, variables))
        return loss

    rate = _rate(lambda: step().numpy(), BATCH)
    flops = _flops(model, 32)
    return {
        "images_per_second": rate,
        "forward_mflops": flops / 1e6,
        "gflops": 3 * flops * rate / 1e9,
    }


def _run(job, processes):
    """The same job in so many processes at once; the sums of the rates."""
    threads = measure.ONE_THREAD if processes > 1 else {}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", MODULE, "--job", json.dumps(job)],
            cwd=measure.ROOT,
            env=measure.environment(**threads),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(processes)
    ]
    results = []
    for process in running:
        out, problems = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{job}: {problems[-2000:]}")
        results.append(json.loads(out.splitlines()[-1]))
    total = dict(results[0])
    for name in ("images_per_second", "gflops"):
        if name in total:
            total[name] = sum(r[name] for r in results)
    return total


def measure_all(networks, ways, cores):
    """A row for every network, way and number of processes."""
    rows = []
    for processes in dict.fromkeys((cores, 1)):
        for dtype in ("float32", "mixed_bfloat16"):
            job = {"network": "matmul", "dtype": dtype}
            row = job | {"processes": processes} | _run(job, processes)
            rows.append(row)
        # One process of all threads only for the network that was chosen.
        for name, width, patch in networks[0 if processes > 1 else -1 :]:
            for dtype, compiled in ways:
                job = {"network": name, "width": width, "patch": patch}
                job |= {"dtype": dtype, "compiled": compiled}
                row = job | {"processes": processes} | _run(job, processes)
                rows.append(row)
                print(_line(row), flush=True)
    return rows


def _line(row):
    return (
        f"{row['network']} width {row['width']} patch {row['patch']} "
        f"{row['dtype']} {'XLA' if row['compiled'] else 'graph'} "
        f"{row['processes']} processes: {row['images_per_second']:,.0f} "
        f"images/s, {row['gflops']:.0f} GFLOP/s"
    )


def markdown(rows):
    """A table of images a second, and of the share of the matrix product."""
    peak = {
        (r["dtype"], r["processes"]): r["gflops"]
        for r in rows
        if r["network"] == "matmul"
    }
    lines = []
    for r in rows:
        if r["network"] == "matmul":
            continue
        network = f"{r['network']}, width {r['width']}, patch {r['patch']}"
        lines.append(
            [
                network,
                f"{r['forward_mflops']:.1f}",
                r["dtype"],
                "XLA" if r["compiled"] else "graph",
                r["processes"],
                f"{r['images_per_second']:,.0f}",
                f"{r['gflops']:.0f}",
                f"{r['gflops'] / peak['float32', r['processes']]:.0%}",
            ]
        )
    head = ["network", "forward MFLOP", "dtype", "by", "processes"]
    head += ["images/s", "GFLOP/s", "of float32 matrix product"]
    peaks = ", ".join(
        f"{dtype}, {n} processes {value:.0f} GFLOP/s"
        for (dtype, n), value in peak.items()
    )
    return f"{measure.table(head, lines)}\n\nMatrix product: {peaks}."


def main(argv=None):
    parser = measure.parser(MODULE, __doc__, "one network")
    args = parser.parse_args(argv)
    if args.job:
        print(json.dumps(run_job(args.job)))
        return
    networks = NETWORKS[-1:] if args.quick else NETWORKS
    ways = WAYS[:1] if args.quick else WAYS
    rows = measure_all(networks, ways, len(os.sched_getaffinity(0)))
    if args.output:
        value = {"provenance": measure.provenance(), "rows": rows}
        measure.write_json(args.output, value)
    print(markdown(rows))


if __name__ == "__main__":
    main()
