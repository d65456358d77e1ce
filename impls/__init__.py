"""What is computed: operators, and the implementations of each behind one registry."""

if __name__ == "impls":
    raise ImportError("import ulproof.impls, not impls: the bare folder would be a second registry")

from .registry import Argument, Implementation, Operator, Pass, implementations, load, operators

__all__ = ["Argument", "Implementation", "Operator", "Pass", "implementations", "load", "operators"]
