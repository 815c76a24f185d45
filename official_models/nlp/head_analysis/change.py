"""How much fine-tuning has changed what the heads look at.

The cosine of a head's map before and after, both flattened,

    cos(A, B) = sum A B / (|A| |B|),

is 1 where nothing has changed; its mean over examples is reported.

References:
    Kovaleva et al. 2019 (arXiv:1908.08593), section 4.2. They compare maps of
    all T x T cells, those of padding included; here padding is cropped, unless
    `paper_compat` is asked for.
"""

from __future__ import annotations

import numpy as np

PADDING = {False: "cropped", True: "kept"}


def cosines(raw: np.ndarray, tuned: np.ndarray) -> np.ndarray:
    """The cosine of each pair of maps.

    Args:
        raw: Maps of one example, [L, N, T, T].
        tuned: Those of the other model.

    Returns:
        float64 [L, N], in [0, 1] since no cell is negative.

    Raises:
        ValueError: The shapes differ.
    """
    if raw.shape != tuned.shape:
        raise ValueError(
            f"tuned: got {tuned.shape}, expected {raw.shape} as of raw"
        )
    a, b = (x.astype("float64") for x in (raw, tuned))
    dot, aa, bb = (
        np.einsum("lnts,lnts->ln", x, y) for x, y in ((a, b), (a, a), (b, b))
    )
    return dot / np.sqrt(aa * bb)
