"""The backbones: one file each. Import them as `fusionbench.backbones`, never under the bare name."""

if not __name__.startswith("fusionbench."):
    raise ImportError("import fusionbench.backbones instead: the bare name 'backbones' belongs to other projects")
