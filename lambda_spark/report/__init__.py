"""What people see: text for the terminal.

May import: everything but cli and replay. Only cli and jobs import it.
"""
