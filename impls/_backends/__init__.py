"""Toolchain plumbing that implementations share; private."""
