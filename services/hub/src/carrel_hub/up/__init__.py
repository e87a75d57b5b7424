"""`carrel up`: all of Carrel on one machine, started, watched and stopped together.

Standard library only, since this process stays for as long as Carrel runs and is to stay small.
"""
