"""The serving layer, which joins the batch view and the speed view into recommendations.

It reads the tables of the other layers, never their code. May import: storage and the ground modules.
"""
