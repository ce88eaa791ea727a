"""One file a claim: its docstring states and proves it, its checks look for a counterexample.

`theory.registry` lists them; ``etfopt verify`` runs them; `README.md` says what each is used for.
"""
