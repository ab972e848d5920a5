#!/bin/sh
# The two pools and the deployments of prefect.yaml, for the model that ROBUSTDISTILL_MODEL names.
set -eu
# the watch's schedule sleeps while there is no source to watch
ROBUSTDISTILL_WATCHES=true
[ -n "${ROBUSTDISTILL_SOURCE:=}" ] || ROBUSTDISTILL_WATCHES=false
export ROBUSTDISTILL_SOURCE ROBUSTDISTILL_WATCHES
for pool in local promoter; do
    prefect --no-prompt work-pool create $pool --type process --overwrite
done
exec prefect --no-prompt deploy --all
