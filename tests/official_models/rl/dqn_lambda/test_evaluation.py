"""What an evaluation counts as cut."""

import numpy as np

from official_models.rl.dqn_lambda import environments, evaluation


def test_an_episode_that_ale_would_cut_counts_as_cut(monkeypatch):
    """Not as ended: it is left one action before."""
    longest = environments.ATARI_CUT - 1
    assert evaluation.LONGEST == {"minatar": 5_000, "atari": longest}
    monkeypatch.setattr(environments, "ATARI_CUT", 40)
    games = environments.make("atari/seaquest", [3, 4])
    games.reset()
    nothing = np.zeros(2)
    dones = [games.step(nothing)[2] for _ in range(40)]
    assert not np.any(dones[:39]) and np.all(dones[39])
    found = evaluation.evaluate(
        lambda x: np.zeros(len(x), int),
        "atari/seaquest",
        1,
        episodes=2,
        longest=39,
    )
    assert found.cut == 2
