"""The serving layer, which joins the batch view and the speed view into recommendations.

This package reads the tables of the other layers and never imports their code. It may import only storage and the
ground modules.
"""
