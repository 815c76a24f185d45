"""What a network scores, apart from its training, and an episode of it."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from official_models.common import files
from official_models.rl.dqn_lambda import environments

Policy = Callable[[np.ndarray], Any]
_GAMES, _RECORDING = 1, 2  # purposes of seeds; 0 are those of training
# Of an episode, in actions: MinAtar's never have to end. ALE cuts its own,
# which then count as ended; one action before, they count as cut.
LONGEST = {"minatar": 5_000, "atari": environments.ATARI_CUT - 1}


class Scores(NamedTuple):
    """Returns of episodes, in the game's own reward.

    Attributes:
        returns: One an episode.
        cut: Episodes that had not ended when they were `LONGEST`; their
            returns are those up to there.
    """

    returns: list[float]
    cut: int

    def as_json(self) -> dict[str, Any]:
        """Mean, its standard error, every return."""
        mean = float(np.mean(self.returns))
        count = len(self.returns)
        error = float(np.std(self.returns, ddof=1)) / math.sqrt(count)
        return {
            "mean": mean,
            "standard_error": error,
            "episodes": count,
            "cut": self.cut,
            "returns": self.returns,
        }


def evaluate(
    policy: Policy,
    game: str,
    history: int,
    *,
    episodes: int,
    epsilon: float = 0.05,
    seed: int = 0,
    longest: int | None = None,
) -> Scores:
    """Plays one episode in each of as many games, side by side.

    Short episodes are not counted more often than long ones, as they would be
    if the first that end were taken.

    Args:
        policy: observations [E, H, W, h * C] -> actions [E].
        game: As `environments.make` takes it.
        history: h.
        episodes: E, 2 or more.
        epsilon: Share of random actions.
        seed: Of the games and of these actions.
        longest: Actions after which an episode is cut; None for `LONGEST`.
    """
    seeds = environments.seeds_of(seed, episodes, _GAMES)
    games = environments.make(game, seeds)
    rng = np.random.default_rng([seed, _GAMES])
    totals, plays = np.zeros(episodes), np.ones(episodes, bool)
    frames = games.reset()
    seen = environments.Histories(history, frames)
    for _ in range(longest or LONGEST[games.suite]):
        actions = _epsilon_greedy(policy, games, seen, epsilon, rng)
        frames, rewards, dones = games.step(actions)
        totals += rewards * plays
        plays &= ~dones
        if not plays.any():
            break
        seen.push(frames, dones)
    return Scores([float(x) for x in totals], int(plays.sum()))


def _epsilon_greedy(policy, games, seen, epsilon, rng) -> np.ndarray:
    observations = seen.observations
    count = len(observations)
    chosen = rng.integers(games.actions, size=count)
    greedy = rng.random(count) >= epsilon
    return np.where(greedy, np.asarray(policy(observations)), chosen)


def record(
    policy: Policy,
    game: str,
    history: int,
    path: Path,
    *,
    epsilon: float = 0.05,
    seed: int = 0,
    longest: int = 1_000,
) -> tuple[float, int]:
    """Plays an episode and writes it as an animated GIF.

    Args:
        policy: As for `evaluate`, like all up to `seed`.
        game: Name.
        history: h.
        path: Of the picture; written under a temporary name first.
        epsilon: Share of random actions.
        seed: Of the game.
        longest: Actions after which the recording ends.

    Returns:
        The return, and the frames that are shown: those on which actions were
        chosen, and the last one, if the recording ended before the episode.
    """
    games = environments.make(game, environments.seeds_of(seed, 1, _RECORDING))
    rng = np.random.default_rng([seed, _RECORDING])
    frames = games.reset()
    seen = environments.Histories(history, frames)
    shown, total = [frames[0]], 0.0
    for _ in range(longest):
        actions = _epsilon_greedy(policy, games, seen, epsilon, rng)
        frames, rewards, dones = games.step(actions)
        total += float(rewards[0])
        if dones[0]:
            break
        seen.push(frames, dones)
        shown.append(frames[0])
    _write_gif(path, shown, games.suite)
    return total, len(shown)


def _write_gif(path: Path, frames: list[np.ndarray], suite: str) -> None:
    from PIL import Image

    draw = _minatar_image if suite == "minatar" else _atari_image
    images = [Image.fromarray(draw(frame)) for frame in frames]
    content = io.BytesIO()
    milliseconds = 100 if suite == "minatar" else 60
    images[0].save(
        content,
        "GIF",
        save_all=True,
        append_images=images[1:],
        duration=milliseconds,
        loop=0,
    )
    files.write_bytes(path, content.getvalue())


def _minatar_image(frame: np.ndarray) -> np.ndarray:
    """[H, W, C] of 0 and 1 -> RGB [16 H, 16 W, 3], a color for each channel."""
    import matplotlib

    channels = frame.shape[-1]
    colors = matplotlib.colormaps["cubehelix"](np.linspace(0, 1, channels + 2))
    top = (frame * np.arange(1, channels + 1)).max(axis=-1)
    rgb = (colors[top, :3] * 255).astype("uint8")
    return rgb.repeat(16, axis=0).repeat(16, axis=1)


def _atari_image(frame: np.ndarray) -> np.ndarray:
    """[H, W, 1] -> grey [3 H, 3 W]."""
    return frame[..., 0].repeat(3, axis=0).repeat(3, axis=1)
