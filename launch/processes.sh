#!/usr/bin/env bash
# Runs python -m mmer_jax.main as N processes of one run, on this machine.
#   bash launch/processes.sh [--dry_run] N FLAG...
# Each process has JAX_NUM_CPU_DEVICES devices (environment; 1 where it is not set). Shown are the
# first process, and what the others write to stderr, with their number. Ctrl-C and SIGTERM go to
# each process once. If one fails, the others have 30 seconds to end; then they are stopped. Exit
# status: of the process that failed first, or 0.
source "$(dirname "$0")/common.sh"
source launch/commands.sh

GRACE=30 # seconds for the others to end after one has failed; they may be writing a checkpoint
LAST=10  # seconds from SIGTERM to SIGKILL

if [ "${1:-}" = --help ]; then usage && exit; fi
take_dry_run "$@"
set -- ${rest[@]+"${rest[@]}"}
[[ ${1:-} =~ ^[1-9][0-9]*$ ]] || fail "'${1:-}' is no number of processes; see --help"
count="$1"
shift
pids=()

# A port below those that systems give to outgoing connections, on which nobody listens.
free_port() {
  local port
  while port=$((20000 + RANDOM % 12000)); do
    (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
  done
  echo "$port"
}

labelled() {
  trap "" INT TERM HUP # it ends with the process that it reads
  local line
  while IFS= read -r line || [ -n "$line" ]; do printf '[%s] %s\n' "$1" "$line" >&2; done
}

# Each process in a group of its own: Ctrl-C in a terminal then reaches it through us alone.
start() {
  local i
  set -m
  for ((i = 0; i < count; i++)); do
    if [ "$i" = 0 ]; then
      "${command[@]}" --process_id=0 "$@" </dev/null &
    else
      "${command[@]}" --process_id="$i" "$@" </dev/null >/dev/null 2> >(labelled "$i") &
    fi
    pids+=($!)
  done
  set +m
}

send() {
  local pid
  for pid in $(jobs -pr); do kill -s "$1" -- "$pid" 2>/dev/null || true; done
}

# Waits for all processes; ends those that stay when another has failed. Sets `status`.
watch() {
  local left="$count" deadline="" next=TERM
  status=0
  while [ "$left" -gt 0 ]; do
    sleep 0.2 || true # a signal may end it early
    collect
    if [ "$status" != 0 ] && [ -z "$deadline" ]; then deadline=$((SECONDS + GRACE)); fi
    if [ -n "$deadline" ] && [ "$SECONDS" -ge "$deadline" ]; then
      send "$next"
      next=KILL
      deadline=$((SECONDS + LAST))
    fi
  done
}

# Takes the exit status of each process that has ended since.
collect() {
  local i code running
  running=" $(jobs -pr | tr '\n' ' ')"
  for i in "${!pids[@]}"; do
    if [[ $running == *" ${pids[i]} "* ]]; then continue; fi
    code=0
    wait "${pids[i]}" || code=$?
    if [ "$status" = 0 ]; then status="$code"; fi
    unset "pids[i]"
    left=$((left - 1))
  done
}

command=(.venv/bin/python -m mmer_jax.main "--coordinator=127.0.0.1:$(free_port)"
  "--num_processes=$count")
if [ -n "$dry_run" ]; then
  for ((i = 0; i < count; i++)); do
    printf '%s &\n' "$(quoted "${command[@]}" "--process_id=$i" "$@")"
  done
  echo wait
  exit
fi
require_venv
trap 'send INT' INT
trap 'send TERM' TERM HUP
trap 'send KILL' EXIT
start "$@"
watch
exit "$status"
