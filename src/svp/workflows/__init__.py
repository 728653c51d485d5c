"""The stories, each read top to bottom: core-set selection, and active learning."""
