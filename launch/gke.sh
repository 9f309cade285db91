#!/usr/bin/env bash
# Runs on a Kubernetes cluster such as GKE, through kubectl and its current context.
#   bash launch/gke.sh ACTION [OPTION...] [-- FLAG...]
# run      one run of python -m mmer_jax.main FLAG... on several hosts (launch/jobset.yaml; the
#          cluster needs JobSet 0.6 or later)
# sweep    the workers of a sweep, each a pod, on one workdir (launch/sweep.yaml)
# status   its jobs and pods
# delete   deletes the run, or with --sweep the sweep; its pods get SIGTERM and write a checkpoint
# Options, or the environment:
#   --name=, --image=       GKE_NAME, GKE_IMAGE: an image with python, this package and configs/
#   --count=N               hosts of a run, workers of a sweep
#   --selector=KEY=VALUE    label of the nodes, such as cloud.google.com/gke-tpu-topology=8x8;
#                           may come several times
#   --resource=KEY=AMOUNT   of each pod, such as google.com/tpu=4; may come several times
#   --claim=NAME            a persistent volume claim, mounted at /shared
#   --service_account=NAME  of the pods, for access to gs://
#   --context=, --namespace=
#   --dry_run               prints the commands, with the manifest
source "$(dirname "$0")/common.sh"
source launch/commands.sh

read_options() {
  while [ $# -gt 0 ]; do
    case "$1" in
      --name=*) name="${1#*=}" ;;
      --image=*) image="${1#*=}" ;;
      --count=*) count="${1#*=}" ;;
      --selector=*=*) settings+=("${1#--}") ;;
      --resource=*=*) settings+=("resources=${1#*=}") ;;
      --claim=* | --service_account=*) settings+=("${1#--}") ;;
      --context=* | --namespace=*) cluster+=("$1") ;;
      --sweep) kind=job ;;
      --) shift && flags=("$@") && return ;;
      *) fail "unknown option '$1'; flags of the run stand after --, see --help" ;;
    esac
    shift
  done
}

require_name() {
  [ -n "$name" ] || fail "$action needs --name= (or GKE_NAME); see --help"
  check_name "$name"
}

# apply TEMPLATE: fills it in and hands it to the cluster.
apply() {
  local manifest command
  require_name
  [ -n "$image" ] || fail "$action needs --image= (or GKE_IMAGE); see --help"
  [[ $count =~ ^[1-9][0-9]*$ ]] || fail "$action needs --count=N, a number from 1; see --help"
  [ "${#flags[@]}" -gt 0 ] || fail "$action needs the flags of python -m mmer_jax.main after --"
  require_venv
  manifest="$(.venv/bin/python launch/fill.py "$1" "name=$name" "image=$image" "count=$count" \
    ${settings[@]+"${settings[@]}"} -- "${flags[@]}")"
  command=(kubectl apply ${cluster[@]+"${cluster[@]}"} -f -)
  if [ -n "$dry_run" ]; then
    printf "%s <<'END_OF_MANIFEST'\n%s\nEND_OF_MANIFEST\n" "$(quoted "${command[@]}")" "$manifest"
  else
    "${command[@]}" <<<"$manifest"
  fi
}

status() {
  execute kubectl get ${cluster[@]+"${cluster[@]}"} jobs,pods -l "app.kubernetes.io/instance=$name"
}

delete() {
  execute kubectl delete ${cluster[@]+"${cluster[@]}"} "$kind" "$name"
}

take_dry_run "$@"
set -- ${rest[@]+"${rest[@]}"}
action="${1:-}"
name="${GKE_NAME:-}" image="${GKE_IMAGE:-}" count=""
kind=jobset settings=() cluster=() flags=()
[ $# -eq 0 ] || shift
case "$action" in
  --help) usage ;;
  run) read_options "$@" && apply launch/jobset.yaml ;;
  sweep) read_options "$@" && apply launch/sweep.yaml ;;
  status) read_options "$@" && require_name && status ;;
  delete) read_options "$@" && require_name && delete ;;
  *) fail "'$action' is no action: run, sweep, status or delete; see --help" ;;
esac
