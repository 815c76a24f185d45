"""`LearnedTermWeighting`, a scikit-learn transformer."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import ClassifierTags
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_is_fitted, validate_data

from official_models.nlp.term_weighting import learning, statistics, weighting
from official_models.nlp.term_weighting.learning import Documents, Settings


class LearnedTermWeighting(TransformerMixin, BaseEstimator):
    r"""Counts of terms, weighted as a network has learned for one category.

        LearnedTermWeighting().fit(X, y).transform(X)

    X has counts, [D, F], sparse or not; y says of each document whether it is
    in the category, by two values of any kind, of which the second in sorted
    order means yes. A part of the documents decides when to stop; the
    statistics of the terms are those of the others. What is kept after `fit`
    is NumPy arrays, so that an estimator can be copied and saved like any of
    scikit-learn's.

    Args:
        kind: As of `learning.Settings`, like all up to `restart_before`.
        validation_fraction: Share of the documents, in (0, 1). With fewer than
            two documents on either side all are used for both.
        random_state: Seed, a whole number, a `RandomState` or None.

    Attributes:
        weights_: w, [F].
        tf_weights_: Kernels and biases of the learned tf, or None.
        classes_: The two values of y.
        validation_f1_: The best.
        n_steps_: Updates, over all starts.
        n_restarts_: Starts with a best F1 of 0.

    Raises:
        ValueError: In `fit`: an argument is out of range, X has a number below
            0, y has not two values.

    References:
        Moreo, Esuli, Sebastiani (arXiv:1903.12090)
    """

    def __init__(
        self,
        kind="local",
        output="identity",
        hidden=1000,
        dropout=0.2,
        learn_tf=False,
        pretrain=None,
        optimizer="lamb",
        learning_rate=None,
        batch_size=100,
        max_steps=100_000,
        validate_every=100,
        patience=20,
        restart_before=10_000,
        validation_fraction=0.2,
        random_state=None,
    ):
        self.kind = kind
        self.output = output
        self.hidden = hidden
        self.dropout = dropout
        self.learn_tf = learn_tf
        self.pretrain = pretrain
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_steps = max_steps
        self.validate_every = validate_every
        self.patience = patience
        self.restart_before = restart_before
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.positive_only = True
        tags.target_tags.required = True
        tags.classifier_tags = ClassifierTags(multi_class=False)
        return tags

    def fit(self, X, y):
        """Learns the weights of the terms.

        Args:
            X: Counts, [D, F], none below 0.
            y: [D], two values.

        Returns:
            The transformer.
        """
        X, y = validate_data(self, X, y, accept_sparse="csr", dtype="float64")
        labels = self._labels(X, y)
        settings = Settings(
            **{
                name: value
                for name, value in self.get_params().items()
                if name not in ("validation_fraction", "random_state")
            }
        )
        if not 0 < self.validation_fraction < 1:
            raise ValueError(
                "validation_fraction: expected a number between 0 and 1, got "
                f"{self.validation_fraction!r}"
            )
        seed = self._seed()
        train, validation = split(labels, self.validation_fraction, seed)
        shares = weighting.shares(X)
        found = learning.fit(
            settings,
            Documents(shares[train], labels[train]),
            Documents(shares[validation], labels[validation]),
            statistics.table(sparse.csr_matrix(X)[train], labels[train]),
            seed,
        )
        self.weights_, self.tf_weights_ = found.weights, found.tf_weights
        self.validation_f1_ = found.f1
        self.n_steps_, self.n_restarts_ = found.steps, found.restarts
        return self

    def transform(self, X):
        """Weighted vectors of length 1, [D, F]; sparse where X is.

        A document without terms is a row of zeros.
        """
        check_is_fitted(self)
        X = validate_data(
            self, X, accept_sparse="csr", dtype="float64", reset=False
        )
        _check_counts(X)
        frequency = weighting.shares(X)
        if self.tf_weights_ is None:
            frequency = frequency.log1p()
        else:
            frequency.data = self._learned_tf(frequency.data)
        found = weighting.unit_length(frequency @ sparse.diags(self.weights_))
        return found if sparse.issparse(X) else found.toarray()

    def _learned_tf(self, x):
        kernel, bias, out, out_bias = self.tf_weights_
        hidden = np.maximum(x[:, None] @ kernel + bias, 0)
        return np.maximum(hidden @ out + out_bias, 0)[:, 0] * np.sign(x)

    def _labels(self, X, y):
        _check_counts(X)
        kind = type_of_target(y)
        if kind not in ("binary", "multiclass"):
            raise ValueError(f"Unknown label type: {kind}; expected two values")
        self.classes_ = np.unique(y)
        if len(self.classes_) > 2:
            raise ValueError(
                "Only binary classification is supported. The type of the "
                f"target is {kind}: y has {len(self.classes_)} values; fit one "
                "transformer a category"
            )
        if len(self.classes_) < 2:
            raise ValueError(
                "y has only one class: expected documents in the category and "
                "outside of it"
            )
        return y == self.classes_[1]

    def _seed(self) -> int:
        if isinstance(self.random_state, (int, np.integer)):
            return int(self.random_state)
        source = self.random_state or np.random.mtrand._rand
        return int(source.randint(2**31))


def _check_counts(X) -> None:
    values = X.data if sparse.issparse(X) else X
    if values.size and values.min() < 0:
        raise ValueError(
            "Negative values in data passed to LearnedTermWeighting: expected "
            "counts of terms"
        )


def split(
    labels: np.ndarray, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Places of training and validation documents, of each label its share.

    Args:
        labels: bool [D].
        share: Of the validation documents, rounded, at least one of a label.
        seed: Of the draw.

    Returns:
        Sorted places; all documents twice where a label has fewer than two.
    """
    rng = np.random.default_rng(seed)
    chosen = []
    for label in (False, True):
        places = np.flatnonzero(labels == label)
        if len(places) < 2:
            everything = np.arange(len(labels))
            return everything, everything
        count = min(max(1, round(share * len(places))), len(places) - 1)
        chosen.append(rng.permutation(places)[:count])
    validation = np.sort(np.concatenate(chosen))
    return np.setdiff1d(np.arange(len(labels)), validation), validation
