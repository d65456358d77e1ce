"""How it is shown: records in, a string out.

``load`` turns run folders (and results of asv and pytest-benchmark) into one pandas DataFrame, a row a record; ``render``
turns that frame into one self-contained HTML page, ``roofline`` into one picture, ``export`` into one file of records.
"""

from .charts import roofline
from .load import export, load
from .render import render

__all__ = ["export", "load", "render", "roofline"]
