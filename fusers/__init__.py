"""The fusers: one file each. Import them as `fusionbench.fusers`, never under the bare name."""

if not __name__.startswith("fusionbench."):
    raise ImportError("import fusionbench.fusers instead: the bare name 'fusers' belongs to other projects")
