"""The honest baseline of every comparison: tf-idf with a linear model."""
