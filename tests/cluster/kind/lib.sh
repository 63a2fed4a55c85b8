# Shared by up and down: STATE_DIR comes first, the engine (docker or podman) second.
# shellcheck shell=bash disable=SC2034
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
state=${1:?usage: $0 STATE_DIR docker|podman} engine=${2:?usage: $0 STATE_DIR docker|podman}
number=${CLUSTER_N:-7}
cluster=penstock-$number registry=penstock-registry-$number port=$((5700 + number))
export KIND_EXPERIMENTAL_PROVIDER=$engine
kind=$("$HERE/../tool" kind)
