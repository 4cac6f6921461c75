"""The benchmarks: one file each. Import them as `fusionbench.benchmarks`, never under the bare name."""

if not __name__.startswith("fusionbench."):
    raise ImportError("import fusionbench.benchmarks instead: the bare name 'benchmarks' belongs to other projects")
