"""CGEarthEye: an archive of very-high-resolution imagery -> a vision foundation model -> maps.

Importing the package imports neither torch nor GDAL; each stage is one function, for example
``from cgeartheye.pretraining import pretrain``.
"""

__version__ = "0.1.0"
