"""One thread a worker: tests run side by side, and spinning threads starve one another."""

import os

for name, value in {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "MKL_NUM_THREADS": "1"}.items():
    os.environ.setdefault(name, value)
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
