"""A model behind HTTP: requests that arrive together share a call of the model (`recipes/serve.py`)."""
