"""Text that people see on the terminal, and files for programs.

This package may import everything but cli and replay. Only cli and jobs import this package.
"""
