"""Local work on one client: train a few steps, measure."""

from fedpeft.training.config import Training
from fedpeft.training.evaluate import Tally, evaluate
from fedpeft.training.trainer import Trained, train

__all__ = ["Tally", "Trained", "Training", "evaluate", "train"]
