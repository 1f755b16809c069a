"""The batch layer: demand and trends per time bucket."""
