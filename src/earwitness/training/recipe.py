"""What a stage of training is: a recipe that prepares a run."""

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path

from earwitness.config import Strict
from earwitness.training.settings import FitConfig

Job = Callable[[], dict[str, float]]
"""a prepared run; calling it trains, and gives the validation scores of the best weights"""


class StageRecipe(Strict):
    """Settings of one stage; each stage is a class of its own, named by its `stage`."""

    stage: str
    fit: FitConfig

    @abstractmethod
    def prepare(self, folder: Path) -> Job:
        """Makes what the run needs, caches on disk among it, and gives the run in `folder`.

        On several processes the main one prepares first and the others find the caches it left.
        """
