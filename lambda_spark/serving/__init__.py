"""The serving layer: both views joined into recommendations."""
