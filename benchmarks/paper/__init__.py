"""The claims of the paper behind DSBR (arXiv 2606.02339), measured: ``benchmark.py
study=paper``.
"""
