"""Data sets whose tasks need long-range dependencies: Pathfinder, and Is Same Class."""

from cnn_reg.data import pathfinder, sources, splits
from cnn_reg.data.image_set import ImageSet, StoredImages
from cnn_reg.data.same_class import SameClassPairs

__all__ = ["ImageSet", "SameClassPairs", "StoredImages", "pathfinder", "sources", "splits"]
