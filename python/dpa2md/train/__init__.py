"""Training of models in the compiled core."""
