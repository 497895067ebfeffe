from kit.ray_nodes import cluster as cluster
from kit.ray_nodes import ray_settings as ray_settings
