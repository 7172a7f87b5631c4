"""The auditor's side of the journal: verify, look into, prove, export and replay what a device recorded.

It reads with code of its own, never with the writer's, and changes nothing in the file.
"""
