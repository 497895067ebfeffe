"""Conformance kits and faulty doubles. A kit is a class of tests: subclass it, say what is under test, run pytest."""
