#!/usr/bin/env bash
# A run on all hosts of a Cloud TPU slice, through gcloud (queued resources).
#   bash launch/tpu.sh ACTION [OPTION...] [-- FLAG...]
# create   asks for the slice and waits until it is there
# setup    copies this folder to every host and installs the package
# run      python -m mmer_jax.main FLAG... on every host, as one run; if the slice is preempted, it is
#          deleted, created and set up anew, and the same command goes on in the same workdir
# stop     SIGTERM to the run: it writes a checkpoint and ends
# status   the state of the slice
# delete   deletes it
# Options, or the environment:
#   --name=, --zone=, --project=   TPU_NAME, TPU_ZONE, TPU_PROJECT
#   --type=                        TPU_TYPE, such as v5litepod-64 (create, run)
#   --version=                     TPU_VERSION, the hosts' software, such as v2-alpha-tpuv5-lite
#   --nfs=HOST:/SHARE              TPU_NFS, a file share that setup mounts at /shared on every host
#   --spot                         a slice that may be preempted
#   --create_option=OPTION         one more option of gcloud's create, such as --service-account=...
#   --dry_run                      prints the commands
# The workdir and the features must lie where every host sees them: --nfs is for that.
source "$(dirname "$0")/common.sh"
source launch/commands.sh

POLL="${TPU_POLL_SECONDS:-30}" # between two looks at the state
LOST=255                       # ssh's exit status when the connection breaks
PASSING=75                     # of the run: what failed may have passed when it runs again
ARCHIVE=build/mmer_jax.tar.gz

read_options() {
  while [ $# -gt 0 ]; do
    case "$1" in
      --name=*) name="${1#*=}" ;;
      --zone=*) zone="${1#*=}" ;;
      --project=*) project="${1#*=}" ;;
      --type=*) type="${1#*=}" ;;
      --version=*) version="${1#*=}" ;;
      --nfs=*) nfs="${1#*=}" ;;
      --spot) create_options+=(--spot) ;;
      --create_option=*) create_options+=("${1#*=}") ;;
      --) shift && flags=("$@") && return ;;
      *) fail "unknown option '$1'; flags of the run stand after --, see --help" ;;
    esac
    shift
  done
}

# require SETTING...: complains about all that are missing at once.
require() {
  local setting missing=()
  for setting in "$@"; do
    [ -n "${!setting}" ] || missing+=("--$setting= (or TPU_$(tr '[:lower:]' '[:upper:]' <<<"$setting"))")
  done
  [ "${#missing[@]}" -eq 0 ] || fail "$action needs ${missing[*]}; see --help"
  check_name "$name"
}

tpus() {
  execute gcloud compute tpus "$@" "--zone=$zone" "--project=$project"
}

# A command line for the shell of every host.
on_hosts() {
  tpus tpu-vm ssh "$name" --worker=all "--command=$1"
}

state() {
  tpus queued-resources describe "$name" '--format=value(state.state)'
}

create() {
  tpus queued-resources create "$name" "--node-id=$name" "--accelerator-type=$type" \
    "--runtime-version=$version" ${create_options[@]+"${create_options[@]}"}
  remark "until this says ACTIVE:"
  if [ -n "$dry_run" ]; then state && return; fi
  local now
  while now="$(state)" && [ "$now" != ACTIVE ]; do
    case "$now" in
      FAILED | SUSPENDING | SUSPENDED) fail "$name is $now; delete it and create it again" ;;
    esac
    echo "$name: $now" >&2
    sleep "$POLL"
  done
  [ "$now" = ACTIVE ] || fail "gcloud does not tell the state of $name"
}

setup() {
  if [ -n "$nfs" ]; then
    on_hosts "set -e; sudo apt-get install --quiet --yes nfs-common; sudo mkdir -p /shared
mountpoint -q /shared || sudo mount -t nfs $(quoted "$nfs") /shared"
  fi
  execute mkdir -p "$(dirname "$ARCHIVE")"
  execute tar --exclude=__pycache__ -czf "$ARCHIVE" \
    LICENSE README.md configs launch mmer_jax pyproject.toml
  tpus tpu-vm scp "$ARCHIVE" "$name:" --worker=all
  # The hosts' own Python is older than ours; uv brings one.
  on_hosts 'set -e; mkdir -p mmer_jax; tar -xzf mmer_jax.tar.gz -C mmer_jax; cd mmer_jax
[ -x .venv/bin/python ] || { python3 -m pip install --quiet --user uv
python3 -m uv venv --quiet --seed --python 3.12 .venv; }
bash launch/install.sh tpu,gcs'
}

# Only one run at a time on a host: after a lost connection the old one first has to end.
train() {
  local run
  run="$(quoted flock --no-fork --timeout 600 run.lock .venv/bin/python -m mmer_jax.main "${flags[@]}")"
  on_hosts "cd mmer_jax && exec $run"
}

run() {
  local status
  if [ -n "$dry_run" ]; then
    train
    remark "after a preemption:"
    anew
    train
    return
  fi
  while true; do
    status=0
    train || status=$?
    if [ "$status" = 0 ] || [ "$status" = 2 ]; then exit "$status"; fi # done, or to be mended
    sleep "$POLL" # the state follows a preemption with some delay
    if preempted; then
      echo "$name was preempted; it is created anew" >&2
      anew
    elif [ "$status" != "$LOST" ] && [ "$status" != "$PASSING" ]; then
      exit "$status"
    fi
  done
}

anew() {
  delete
  create
  setup
}

preempted() {
  local now
  while now="$(state)" && [ "$now" = SUSPENDING ]; do sleep "$POLL"; done
  [ "$now" = SUSPENDED ] || [ "$now" = FAILED ]
}

stop() {
  on_hosts 'fuser --kill -TERM mmer_jax/run.lock'
}

delete() {
  tpus queued-resources delete "$name" --force --quiet
}

take_dry_run "$@"
set -- ${rest[@]+"${rest[@]}"}
action="${1:-}"
name="${TPU_NAME:-}" zone="${TPU_ZONE:-}" project="${TPU_PROJECT:-}"
type="${TPU_TYPE:-}" version="${TPU_VERSION:-}" nfs="${TPU_NFS:-}"
create_options=() flags=()
[ $# -eq 0 ] || shift
case "$action" in
  --help) usage ;;
  create) read_options "$@" && require name zone project type version && create ;;
  run)
    read_options "$@" && require name zone project type version
    [ "${#flags[@]}" -gt 0 ] || fail "run needs the flags of python -m mmer_jax.main after --"
    run
    ;;
  setup | stop | delete) read_options "$@" && require name zone project && "$action" ;;
  status) read_options "$@" && require name zone project && state ;;
  *) fail "'$action' is no action: create, setup, run, stop, status or delete; see --help" ;;
esac
