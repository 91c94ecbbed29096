"""The search and the final training as an estimator of scikit-learn."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_is_fitted, column_or_1d, validate_data

from rlnas.errors import ConfigurationError, DataError
from rlnas.final_training import FinalTraining
from rlnas.user_data import UserData, checked_images, data_from_arrays, read_data

from .fit_settings import FitSettings
from .fitting import begin_fit, fit

if TYPE_CHECKING:
    from rlnas.architecture import Architecture


class ArchitectureSearchClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Finds a network for the data it is given, and trains it: ``rlnas fit`` in scikit-learn's manner.

    Whoever calls :meth:`fit` keeps a test part of their own, as is scikit-learn's way: all that is given is searched
    and trained on, a part of it to validate. Only where a path is given, and the data there has an official test part,
    is that kept out; ``model_.test`` has its scores.

    Args:
        agent: who designs; see :func:`rlnas.agents.registry.resolve_agent`.
        designs: how many.
        fidelity: ``EXAMPLESxSTEPS`` that each design is first evaluated with.
        rungs: of successive halving.
        finalists: designs that are trained at full width for a while before the best of them is trained to the end.
        validation: fraction of the data that designs are compared on.
        training: how the winner is trained, a :class:`~rlnas.final_training.FinalTraining`; None for the defaults.
        image_shape: (H, W) or (H, W, C) where each row of ``X`` is an image laid flat; None where it is not.
        image_size: the shorter side of larger images, in pixels; None for 32.
        max_seconds: time for all of it; None for any.
        max_params: parameters that the network may have; None for any number.
        max_flops: multiply-accumulates of one example, likewise.
        device: ``cpu``, ``cuda`` or ``auto``.
        random_state: seed, an integer, a ``RandomState``, or None for another one at each fit.

    Attributes:
        classes_: the labels, of shape (ways,).
        n_features_in_: numbers in an example.
        best_architecture_: the network found, which draws itself in a notebook.
        leaderboard_: every evaluation, a list of dictionaries, best network first.
        model_: the trained :class:`~rlnas.model.Model`.
    """

    def __init__(
        self,
        agent: str = "pretrained",
        designs: int = 20,
        fidelity: str | None = None,
        rungs: int = 3,
        finalists: int = 1,
        validation: float = 0.2,
        training: FinalTraining | None = None,
        image_shape: Sequence[int] | None = None,
        image_size: int | None = None,
        max_seconds: float | None = None,
        max_params: int | None = None,
        max_flops: int | None = None,
        device: str = "cpu",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.agent = agent
        self.designs = designs
        self.fidelity = fidelity
        self.rungs = rungs
        self.finalists = finalists
        self.validation = validation
        self.training = training
        self.image_shape = image_shape
        self.image_size = image_size
        self.max_seconds = max_seconds
        self.max_params = max_params
        self.max_flops = max_flops
        self.device = device
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> ArchitectureSearchClassifier:
        """Find a network and train it.

        Args:
            X: features of shape (n, F); images of shape (n, H, W) or (n, H, W, C), or flat ones with ``image_shape``;
                a folder or file that :func:`rlnas.user_data.read_data` reads; or a dataset of torch, whose items are
                (image or features, label).
            y: labels of shape (n,); None where ``X`` has them.

        Raises:
            ConfigurationError: if a parameter is not allowed.
            DataError: if the data cannot serve.
        """
        data = self._data(X, y)
        settings = FitSettings(
            agent=self.agent,
            designs=self.designs,
            fidelity=self.fidelity,
            rungs=self.rungs,
            finalists=self.finalists,
            validation=self.validation,
            test=0.0,
            seed=int(check_random_state(self.random_state).randint(2**31 - 1)),
            max_seconds=self.max_seconds,
            max_params=self.max_params,
            max_flops=self.max_flops,
            training=self.training or FinalTraining(),
        )
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "run"
            begin_fit(folder, data, settings)
            found = fit(folder, data, self.device, report=False)
        assert found is not None  # nobody could have stopped it
        self.model_ = found.model
        self.best_architecture_: Architecture = found.model.architecture
        self.leaderboard_ = [
            {"rank": rank, **{k: v for k, v in vars(entry).items() if k != "choices"}}
            for rank, entry in enumerate(found.leaderboard.ranked, start=1)
        ]
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """The probability of every class, of shape (n, ways), for an array of examples as :meth:`fit` takes them."""
        check_is_fitted(self)
        return np.asarray(self.model_.predict_proba(self._examples(X)), dtype=np.float64)

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class of each example, of shape (n,)."""
        probabilities = self.predict_proba(X)
        return np.asarray(self.classes_[probabilities.argmax(1)])

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _data(self, X: Any, y: Any) -> UserData:
        """What was given, with numbers for labels; sets ``classes_`` and ``n_features_in_``."""
        if y is None and isinstance(X, str | Path):
            data = read_data(X, image_size=self.image_size)
            self.classes_ = np.array(data.classes)
            self.n_features_in_ = int(np.prod(data.x.shape[1:]))
            return data
        if y is None and not isinstance(X, np.ndarray) and hasattr(X, "__getitem__") and hasattr(X, "__len__"):
            X, y = _items(X, self.image_size)
        X, y = self._checked(X, y)
        check_classification_targets(y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError(f"y must have at least two classes, has 1 class: {self.classes_[0]!r}")
        return data_from_arrays(X, numbers, "X", image_size=self.image_size)

    def _checked(self, X: Any, y: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """Examples and labels, checked in scikit-learn's manner."""
        if y is None:
            raise ConfigurationError("this classifier requires y to be passed, but the target y is None")
        if isinstance(X, str | Path):
            raise ConfigurationError(f"y must be None where X is a path, which holds the labels; X is {str(X)!r}")
        if _dimensions(X) <= 2:
            X, y = validate_data(self, X, y)
            return self._shaped(X), y
        X = check_array(X, ensure_2d=False, allow_nd=True)
        y = column_or_1d(y, warn=True)
        self.n_features_in_ = int(np.prod(X.shape[1:]))
        return X, y

    def _examples(self, X: Any) -> NDArray[Any]:
        """Examples to predict, as the model takes them."""
        if _dimensions(X) <= 2:
            return self._shaped(validate_data(self, X, reset=False))
        return np.asarray(check_array(X, ensure_2d=False, allow_nd=True))

    def _shaped(self, X: NDArray[Any]) -> NDArray[Any]:
        """Rows as images, if that is what they are."""
        if self.image_shape is None:
            return X
        shape = tuple(np.atleast_1d(self.image_shape).tolist())
        if len(shape) not in (2, 3) or np.prod(shape) != X.shape[1]:
            raise ConfigurationError(f"image_shape must be (H, W) or (H, W, C) of {X.shape[1]} numbers, got {shape}")
        return X.reshape(len(X), *shape)


def _dimensions(X: Any) -> int:
    """Of an array, or what can be made one."""
    return int(X.ndim) if hasattr(X, "ndim") else np.asarray(X).ndim


def _items(dataset: Any, image_size: int | None) -> tuple[NDArray[Any], NDArray[Any]]:
    """The examples and labels of a dataset of torch; each image is shrunk as it is read.

    Raises:
        DataError: if its items are not pairs of arrays of one shape and labels, naming the first that is not.
    """
    examples, labels = [], []
    for index in range(len(dataset)):
        try:
            x, label = dataset[index]
            if int(label) != label:
                raise ValueError(f"the label is {label}")
            labels.append(int(label))
            examples.append(_example(x, image_size))
            if examples[-1].shape != examples[0].shape:
                raise ValueError(f"its shape is {examples[-1].shape}, the first one's {examples[0].shape}")
        except (TypeError, ValueError, OSError) as error:
            reason = " ".join(str(error).split())
            raise DataError(f"items of X must be (image or features, label), item {index} is not: {reason}") from None
    return np.stack(examples) if examples else np.empty((0, 1)), np.array(labels)


def _example(x: Any, image_size: int | None) -> NDArray[Any]:
    """One example as an array; a tensor's channels, which come first, last."""
    array = np.asarray(x)
    if array.ndim < 2:
        return array
    array = np.moveaxis(array, 0, -1) if array.ndim == 3 and hasattr(x, "detach") else array
    return np.asarray(checked_images("X", array[None], image_size)[0])
