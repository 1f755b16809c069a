"""Text that people see on the terminal, and files for programs.

May import: everything but cli and replay. Only cli and jobs import it.
"""
