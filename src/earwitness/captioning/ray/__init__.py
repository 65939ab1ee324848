"""Captions for a whole corpus on Ray Data: many machines, one command, any file system.

`read_sounds` lists sounds as a Ray dataset, `caption_dataset` captions it, and `outcomes` is the
engine behind `earwitness caption --engine ray`. Nothing here imports ray until it is called.
"""

from earwitness.captioning.ray.cluster import Cluster as Cluster
from earwitness.captioning.ray.cluster import outcomes as outcomes
from earwitness.captioning.ray.dataset import caption_dataset as caption_dataset
from earwitness.captioning.ray.dataset import read_sounds as read_sounds
from earwitness.captioning.ray.listing import find_anywhere as find_anywhere
from earwitness.captioning.ray.listing import manifest_anywhere as manifest_anywhere
from earwitness.captioning.ray.worker import Extras as Extras
