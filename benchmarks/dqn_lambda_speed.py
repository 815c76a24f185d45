"""Transitions a second of DQN(lambda), and what bounds them.

    nice -n 10 python -m benchmarks.dqn_lambda_speed --output \\
        official_models/rl/dqn_lambda/results/speed.json

Of the training script's defaults on MinAtar Breakout (refresh of 8,000 and 31
updates of batch 256 by LAMB every 1,000 transitions; epsilon 0.1), measured in
turns in one process:

- `whole`: a period of 1,000 transitions: refresh, updates, play in 10 games;
- `plain`: the same amount one transition at a time: one game, a call of
  `predict_on_batch` for its observation, one for each block of the refresh,
  `train_on_batch` for each minibatch;
- `environment`: 1,000 transitions of random actions in the 10 games, alone;
- `memory`: storing them, and drawing the blocks;
- `acting`, `refresh`, `updates`: what the network does in `whole`, alone.

Seconds of 1,000 transitions; processor seconds of all threads beside the
clock's, which other programs lengthen. Each is run once before it is measured,
so that nothing compiles. --quick: a twentieth of the refresh and the updates.
"""

import json
import time

import numpy as np

from benchmarks import measure
from tf_lamb.diagnostics import command_line

MODULE = "benchmarks.dqn_lambda_speed"
GAME, GAMES, TRANSITIONS, RATE = "minatar/breakout", 10, 1_000, 0.01
CACHE, BLOCK, BATCH = 8_000, 100, 256


def _agent(shape):
    import tf_lamb
    from official_models.rl.dqn_lambda import networks
    from official_models.rl.dqn_lambda.agent import Agent

    network = networks.make("cnn", GAME, shape, seed=1)
    optimizer = tf_lamb.LAMB(RATE, exclude_from_weight_decay="biases_and_norms")
    optimizer.build(network.trainable_variables)
    return Agent(network, optimizer, shape, 40.0)


def _learner(count, cache):
    """A learner whose memory is filled, in its second period."""
    from official_models.rl.dqn_lambda import environments, learning, networks
    from official_models.rl.dqn_lambda.replay import Replay

    games = environments.make(GAME, environments.seeds_of(1, count, 0))
    settings = learning.Settings(
        steps=10**9,
        prepopulate=5_000,
        refresh_every=TRANSITIONS,
        cache_size=cache,
        block_size=BLOCK,
        batch_size=BATCH,
        epsilon_steps=1,
        epsilon_end=0.1,
        priority=0.0,
        seed=1,
    )
    shape = networks.Shape(games.frame_shape, 1, games.actions)
    memory = Replay(100_000, count, games.frame_shape, 1, BLOCK)
    learner = learning.Learner(
        settings, learning.Estimator(), games, _agent(shape), memory
    )
    learner.collect(0)
    return learner


def _plain_period(learner):
    """A period of one game, as Keras' own calls do it one by one."""
    settings, network = learner.settings, learner.agent.network
    rng = np.random.default_rng(1)
    blocks = learner.memory.sample(rng, settings.cache_size // BLOCK)
    q = np.stack([network.predict_on_batch(x) for x in blocks.frames])
    targets = learner.estimator(blocks, q)
    values = q[:, :-1].copy()
    np.put_along_axis(values, blocks.actions[..., None], targets[..., None], -1)
    frames = blocks.frames[:, :-1].reshape(-1, *blocks.frames.shape[2:])
    values = values.reshape(-1, values.shape[-1])
    for _ in range(settings.updates):
        index = rng.integers(len(frames), size=BATCH)
        # Where the action was not taken, the target is the value at refresh.
        network.train_on_batch(frames[index], values[index])
    for _ in range(TRANSITIONS):
        action = rng.integers(learner.games.actions)
        if rng.random() >= 0.1:
            seen = learner._histories.observations
            action = network.predict_on_batch(seen)[0].argmax()
        learner.play(np.array([action], "uint8"))


def _jobs(cache):
    """{name: a function of no arguments that does 1,000 transitions' work}."""
    import tf_lamb
    from official_models.rl.dqn_lambda import environments

    learner, single = _learner(GAMES, cache), _learner(1, cache)
    single.agent.network.compile(
        tf_lamb.LAMB(RATE, exclude_from_weight_decay="biases_and_norms"), "mse"
    )
    settings, agent, memory = learner.settings, learner.agent, learner.memory
    games = environments.make(GAME, environments.seeds_of(2, GAMES, 0))
    frames = games.reset()
    rng = np.random.default_rng(0)
    count = cache // BLOCK
    blocks = memory.sample(rng, count)
    q = agent.values(blocks)
    targets = learner.estimator(blocks, q)
    indices = rng.integers(targets.size, size=settings.minibatches)
    calls = TRANSITIONS // GAMES

    def whole():
        learner.train(1)
        learner.collect(1)

    def environment():
        for _ in range(calls):
            games.step(rng.integers(games.actions, size=GAMES))

    def remember():
        nothing = np.zeros(GAMES)
        for _ in range(calls):
            memory.append(frames, nothing, nothing, nothing)
        memory.sample(rng, count)

    def acting():
        for _ in range(calls):
            agent.act(frames)

    return {
        "whole": whole,
        "plain": lambda: _plain_period(single),
        "environment": environment,
        "memory": remember,
        "acting": acting,
        "refresh": lambda: learner.estimator(blocks, agent.values(blocks)),
        "updates": lambda: agent.train(blocks, targets, indices),
    }


def run_job(job):
    """The figures for {"repeats": of each, "cache": C}.

    Seconds of 1,000 transitions are {name: {"clock" or "processor": sample}}.
    """
    repeats, cache = job["repeats"], job["cache"]
    jobs = _jobs(cache)
    for work in jobs.values():
        work()
    samples = {name: {"clock": [], "processor": []} for name in jobs}
    for _ in range(repeats):
        for name, work in jobs.items():
            clock, processor = time.perf_counter(), time.process_time()
            work()
            samples[name]["clock"].append(time.perf_counter() - clock)
            samples[name]["processor"].append(time.process_time() - processor)
    seconds = {
        name: {k: measure.summary(v) for k, v in both.items()}
        for name, both in samples.items()
    }
    return {
        "cache_size": cache,
        "updates": cache // BATCH,
        "seconds": seconds,
        "plain_by_whole": {
            k: seconds["plain"][k]["median"] / seconds["whole"][k]["median"]
            for k in ("clock", "processor")
        },
    }


def markdown(found):
    """The table of what was measured."""
    rows = [
        (
            name,
            *(f"{1000 * both[k]['median']:.0f}" for k in both),
            f"{TRANSITIONS / both['clock']['median']:,.0f}",
        )
        for name, both in found["seconds"].items()
    ]
    head = ("", "clock, ms", "processor, ms", "transitions a second")
    ratios = found["plain_by_whole"]
    return (
        measure.table(head, rows)
        + f"\n\nplain by whole: {ratios['clock']:.1f} by the clock, "
        f"{ratios['processor']:.1f} by processor seconds"
    )


def main(argv=None):
    parser = measure.parser(MODULE, __doc__, "a twentieth of the refresh")
    parser.add_argument(
        "--repeats", type=command_line.count, help="default 7, 1 if --quick"
    )
    args = parser.parse_args(argv)
    if args.job:
        print(json.dumps(run_job(args.job)))
        return
    job = {
        "repeats": args.repeats or (1 if args.quick else 7),
        "cache": CACHE // 20 if args.quick else CACHE,
    }
    found = measure.fresh(MODULE, job)
    if args.output:
        value = dict(provenance=measure.provenance(seed=1), **found)
        measure.write_json(args.output, value)
    print(markdown(found))


if __name__ == "__main__":
    main()
