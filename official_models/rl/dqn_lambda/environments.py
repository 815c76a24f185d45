"""Games of MinAtar and Atari, several side by side, behind one interface.

The games themselves are those of the packages `minatar` and `ale-py`, which
brings its ROMs along. A game that has ended begins anew in the same step: what
`step` gives is then the first frame of the next episode.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from official_models.common.errors import InputError, require

SUITES = ("minatar", "atari")
ATARI_CUT = 27_000  # actions, 30 minutes of a game
_ATARI_SKIP = 4
MINATAR_GAMES = (
    "asterix",
    "breakout",
    "freeway",
    "seaquest",
    "space_invaders",
)


class Games(Protocol):
    """`E` copies of a game.

    Attributes:
        suite: One of `SUITES`.
        frame_shape: (height, width, channels).
        actions: How many there are.
        clips_rewards: Whether an agent is given rewards within [-1, 1].
    """

    suite: str
    frame_shape: tuple[int, int, int]
    actions: int
    clips_rewards: bool

    def reset(self) -> np.ndarray:
        """Begins every game anew, as its seed has it: frames [E, H, W, C]."""

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Plays an action [E] in each.

        Returns:
            Frames [E, H, W, C], uint8; rewards [E], float32, as the game has
            them; whether an episode ended [E], bool.
        """


def make(name: str, seeds: Sequence[int]) -> Games:
    """The games of a name such as `minatar/breakout` or `atari/seaquest`.

    Args:
        name: Of the suite and the game.
        seeds: One of each copy: E of them, in [0, 2**31).

    Raises:
        InputError: There is no such game, or its package is not installed.
    """
    suite, _, game = name.partition("/")
    if suite == "minatar" and game in MINATAR_GAMES:
        require("minatar", f"--game {name}")
        return MinAtarGames(game, seeds)
    require("ale_py", f"--game {name}")
    from ale_py import roms

    atari = roms.get_all_rom_ids()
    if suite == "atari" and game in atari:
        return AtariGames(game, seeds)
    known = [f"minatar/{x}" for x in MINATAR_GAMES]
    known += [f"atari/{x}" for x in sorted(atari)]
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.4)
    raise InputError(
        f"--game {name}: expected minatar/GAME or atari/GAME; nearest: "
        + ", ".join(near or known[:3])
    )


def seeds_of(seed: int, count: int, purpose: int) -> list[int]:
    """Seeds of `count` games.

    Args:
        seed: Of the run.
        count: E.
        purpose: Another number gives other games.
    """
    made = np.random.SeedSequence([seed, purpose]).generate_state(count)
    return [int(x) for x in made >> 1]


class MinAtarGames:
    """Copies of a MinAtar game, all six actions, sticky with probability 0.1.

    Args:
        game: One of `MINATAR_GAMES`.
        seeds: One of each copy.
    """

    suite, clips_rewards, actions = "minatar", False, 6

    def __init__(self, game: str, seeds: Sequence[int]):
        logging.disable(logging.WARNING)  # that it can draw no windows
        try:
            from minatar import Environment
        finally:
            logging.disable(logging.NOTSET)
        self._seeds = seeds
        self._games = [Environment(game) for _ in seeds]
        height, width, channels = self._games[0].state_shape()
        self.frame_shape = height, width, channels

    def reset(self) -> np.ndarray:
        for game, seed in zip(self._games, self._seeds):
            game.seed(seed)
            game.last_action = 0
            game.reset()
        return self._frames()

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rewards = np.zeros(len(actions), "float32")
        dones = np.zeros(len(actions), bool)
        for i, game in enumerate(self._games):
            rewards[i], dones[i] = game.act(int(actions[i]))
            if dones[i]:
                game.reset()
        return self._frames(), rewards, dones

    def _frames(self) -> np.ndarray:
        return np.stack([game.state() for game in self._games]).view("uint8")


class AtariGames:
    """Copies of an Atari game by ALE's vector environment.

    Frames are 84 x 84 in grey, the larger of two in a row; an action is played
    for 4 frames. An episode begins with up to 30 actions that do nothing, and
    fire where that begins the game. One that is cut at `ATARI_CUT` actions,
    108,000 frames, counts as ended.

    Args:
        game: ALE's name of it.
        seeds: One of each copy.
    """

    suite, clips_rewards = "atari", True

    def __init__(self, game: str, seeds: Sequence[int]):
        from ale_py.vector_env import AtariVectorEnv
        from gymnasium.vector import AutoresetMode

        self._seeds = np.asarray(seeds)
        self._games = AtariVectorEnv(
            game,
            len(seeds),
            stack_num=1,
            frameskip=_ATARI_SKIP,
            max_num_frames_per_episode=_ATARI_SKIP * ATARI_CUT,
            reward_clipping=False,
            autoreset_mode=AutoresetMode.SAME_STEP,
        )
        self.frame_shape = (84, 84, 1)
        self.actions = int(self._games.single_action_space.n)

    def reset(self) -> np.ndarray:
        frames, _ = self._games.reset(seed=self._seeds)
        return frames.transpose(0, 2, 3, 1).copy()

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        frames, rewards, ended, cut, _ = self._games.step(
            actions.astype("int64")
        )
        frames = frames.transpose(0, 2, 3, 1).copy()
        return frames, rewards.astype("float32"), ended | cut


class Histories:
    """The last h frames of each game's episode, zeros before its first.

    Args:
        history: h.
        frames: [E, H, W, C], with which the games begin.
    """

    def __init__(self, history: int, frames: np.ndarray):
        self._frames = np.zeros((len(frames), history, *frames.shape[1:]), "u1")
        self._frames[:, -1] = frames

    def push(self, frames: np.ndarray, dones: np.ndarray) -> None:
        """Takes the next frames; of a game that has ended, its first one."""
        self._frames[:, :-1] = self._frames[:, 1:]
        self._frames[dones] = 0
        self._frames[:, -1] = frames

    @property
    def observations(self) -> np.ndarray:
        """[E, H, W, h * C], uint8, the oldest frame first."""
        count, history, height, width, channels = self._frames.shape
        return self._frames.transpose(0, 2, 3, 1, 4).reshape(
            count, height, width, history * channels
        )
