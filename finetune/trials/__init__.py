"""The trials of a search for good flags: what may be tried, who runs which trial, what came out."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
