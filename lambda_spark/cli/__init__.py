"""The command line and the frame of every job.

May import: everything but replay. The jobs import it.
"""
