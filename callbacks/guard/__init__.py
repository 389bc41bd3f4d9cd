"""The guard: ``guard.py`` is the callback; ``evidence.py`` says whom to trust,
``signals.py`` what is watched for, ``modes.py`` what follows.
"""
