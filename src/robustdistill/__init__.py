"""robustdistill: robust small models from hardened teachers, by a pipeline that can be trusted."""

import os

__version__ = "0.1.0"

# No call to a host that the user did not name: telemetry of all three engines is off before any of them is imported.
# Whoever wants it on sets the variable.
for _name, _value in {
    "DO_NOT_TRACK": "true",  # Prefect's SDK and MLflow; MLflow takes only "true"
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_MODEL_CATALOG_URI": "",
    "DVC_NO_ANALYTICS": "1",
}.items():
    os.environ.setdefault(_name, _value)
