"""Engines: who starts the workers of a plan, and starts them again where they were killed.

A worker is a process that runs ``entrob work FOLDER`` and ends when all of the plan is done, by it
or by others; leases (`entrob.persistence.leases`) share the batches out. An engine only sees to it
that workers run. All of them need the folder on a disk that they share.
"""
