#!/bin/sh
# Builds the images of infra/compose.yaml and tries the worker's: imports, user, the flows in it, and that it refuses a database.
#   make containers                       podman, as root; needs the base images, from a registry or imported
#   VARIANT=cpu TORCH_INDEX=ADDRESS make containers
#   CONTAINER=docker make containers
# TARGETS says which (default: server worker; s3 needs its base image, too). BUILD_ARGS and RUN_ARGS are added as they are:
# where podman may set no limits, `--ulimit nofile=1024:1024 --ulimit nproc=1024:1024 --network host`, and before the
# command, in CONTAINER, `podman --runtime runc --cgroup-manager cgroupfs`.
set -eu
cd "$(dirname "$0")/.."
container=${CONTAINER:-podman}
command -v "${container%% *}" >/dev/null || {
    echo "error: ${container%% *} is not installed" >&2
    echo "  fix:   apt-get install podman, or CONTAINER=docker" >&2
    exit 2
}
variant=${VARIANT:-cuda}
format=""
[ "${container%% *}" != podman ] || format="--format docker" # else the health checks are lost
for target in ${TARGETS:-server worker}; do
    name=robustdistill-$target:0.1.0
    [ "$target" != worker ] || name=$name-$variant
    # shellcheck disable=SC2086
    $container build $format ${BUILD_ARGS:-} --build-arg VARIANT="$variant" --build-arg TORCH_INDEX="${TORCH_INDEX:-}" \
        -f infra/Dockerfile --target "$target" -t "$name" .
    case $target in
    worker) try='robustdistill methods >/dev/null && python -c "import torch, torchvision.models" && test -f flows/retrain.py && git --version' ;;
    server) try='mlflow --version && prefect --version && python -c "import psycopg2, asyncpg, prefect_kubernetes"' ;;
    *) continue ;;
    esac
    # shellcheck disable=SC2086
    $container run --rm ${RUN_ARGS:-} "$name" sh -ec "test \"\$(id -u)\" = 10001 && test ! -w /app && test ! -w /opt/venv && $try"
    echo "built and tried: $name"
done
