# How images are built and pushed: BUILDER is buildah (the default), docker or podman.
# shellcheck shell=bash
builder=${BUILDER:-buildah}
image_names="operator $(cd connectors && echo */)"; image_names=${image_names//\//}
state=$PWD/.state/images; mkdir -p "$state"
# vfs copies the whole of an image for each of its steps, but works on a filesystem that overlay does not.
buildah_() { buildah --root "$state/store-$storage" --runroot "$state/run-$storage" --storage-driver "$storage" "$@"; }
storage=overlay layers=--layers
if [ "$builder" = buildah ] && ! buildah_ info >/dev/null 2>&1; then storage=vfs layers=--layers=false; fi
make_image() { # TAG FILE CONTEXT [FLAGS...]
  local tag=$1 file=$2 context=$3; shift 3
  case $builder in
    buildah) buildah_ bud -q $layers --isolation chroot --timestamp 0 --tls-verify=false "$@" -f "$file" -t "$tag" "$context" ;;
    podman) podman build -q --timestamp 0 --tls-verify=false "$@" -f "$file" -t "$tag" "$context" ;;
    docker) docker build -q "$@" -f "$file" -t "$tag" "$context" ;;
    *) echo "BUILDER=$builder: name buildah, docker or podman" >&2; return 2 ;;
  esac >/dev/null
}
push_image() { # TAG REFERENCE DIGEST_FILE
  local tag=$1 reference=$2 file=$3
  case $builder in
    buildah) buildah_ push -q --tls-verify=false --digestfile "$file" "$tag" "docker://$reference" ;;
    podman) podman push -q --tls-verify=false --digestfile "$file" "$tag" "docker://$reference" ;;
    docker)
      docker tag "$tag" "$reference" && docker push -q "$reference" >/dev/null
      docker inspect -f '{{range .RepoDigests}}{{println .}}{{end}}' "$reference" | sed -n "s|^${reference%:*}@||p" | head -1 | tr -d '\n' > "$file" ;;
  esac
}
read_from_image() { # TAG PATH: prints the file, or fails when the image has none
  local tag=$1 path=$2 container folder status=0
  case $builder in
    buildah)
      container=$(buildah_ from -q --pull=never "$tag") && folder=$(buildah_ mount "$container") || return 1
      cat "$folder$path" || status=1
      buildah_ rm "$container" >/dev/null; return $status ;;
    *)
      container=$("$builder" create "$tag") || return 1
      "$builder" cp "$container:$path" - | tar -xO || status=1
      "$builder" rm "$container" >/dev/null; return $status ;;
  esac
}
