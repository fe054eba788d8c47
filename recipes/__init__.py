"""The recipes: stories that read from top to bottom, and can be copied and changed."""
