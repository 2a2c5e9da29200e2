"""Load the model of a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from streamtrain.model.files import naming_damage, read_description, read_state
from streamtrain.model.model import Model

__all__ = ["load_model"]


def load_model(run: str | Path, *, learner: Any = None) -> Model:
    (
        """The model of a run folder.

    Parameters
    ----------
    run
        The folder that `fit` wrote.
    learner
        The learner of the model if it is neither built in nor installed: ``"module:name"``, or the class or function
        itself. Loading such a model runs the code of that module, so without this argument it is refused.

    Returns
    -------
    Model
        Ready to predict, and to learn more.

    Raises
    ------
    RunError
        For a folder without a model, or with a damaged one; or if the learner is not given, or differs.

    Example
    -------
    >>> import tempfile
    >>> from streamtrain import fit
    >>> run = Path(tempfile.mkdtemp(), "run")
    >>> result = fit({"x": range(100), "y": [0, 1] * 50}, target="y", out=run)
    >>> load_model(run).classes
    (0, 1)
    """
        ""
    )
    folder = Path(run)
    with naming_damage(folder):
        description = read_description(folder)
        model = Model.of(description, learner)
        model.load_state_dict(read_state(folder, description))
    return model
