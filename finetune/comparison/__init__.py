"""Compares models with several seeds: from the files of finished runs to the numbers of a report."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={"tables": ["comparison_of"]})
