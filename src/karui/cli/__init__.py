"""The command line: `main.py` and one small file a verb. Heavy imports stay inside the verb."""
