#!/usr/bin/env bash
# A real SLURM on this machine alone: munged, slurmctld and slurmd in one folder, on ports of its own.
#   bash tests/launch/slurm.sh start DIR   installs slurm-wlm and munge where that is missing and may
#                                          be done (root, apt-get); SLURM_CONF=DIR/slurm.conf then
#                                          leads sbatch, squeue, ... to it
#   bash tests/launch/slurm.sh stop DIR    cancels what runs and ends the three daemons
# Exit status 3: SLURM cannot be had here; the reason stands on stderr.
# No systemd, no cgroups, no account data base; one node that claims 8 CPUs, whatever it has.
set -euo pipefail
PATH="$PATH:/usr/sbin:/sbin"

unavailable() {
  echo "no SLURM: $1" >&2
  exit 3
}

install() {
  local missing=() program
  for program in munged slurmctld slurmd sbatch; do
    command -v "$program" >/dev/null || missing+=("$program")
  done
  [ "${#missing[@]}" -gt 0 ] || return 0
  [ "$(id -u)" = 0 ] || unavailable "${missing[*]} not installed, and only root may install"
  command -v apt-get >/dev/null || unavailable "${missing[*]} not installed, and no apt-get here"
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update && apt-get install -y --no-install-recommends slurm-wlm munge; } \
    >"$dir/install.log" 2>&1 || unavailable "apt-get fails: $(tail -n 1 "$dir/install.log")"
}

# Two ports on which nobody listens.
free_ports() {
  local port found=()
  while [ "${#found[@]}" -lt 2 ]; do
    port=$((20000 + RANDOM % 12000))
    (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || found+=("$port")
  done
  echo "${found[@]}"
}

write_config() {
  local host user ports
  host="$(hostname -s)"
  user="$(id -un)"
  read -r -a ports <<<"$(free_ports)"
  mkdir -p "$dir/state" "$dir/spool"
  cat >"$dir/slurm.conf" <<END
ClusterName=mmer
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${ports[0]}
SlurmdPort=${ports[1]}
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
MailProg=/bin/true
KillWait=30
NodeName=$host NodeAddr=127.0.0.1 CPUs=8 State=UNKNOWN
PartitionName=all Nodes=$host Default=YES MaxTime=INFINITE State=UP
END
}

start() {
  mkdir -p "$dir"
  chmod 755 "$dir"
  install
  write_config
  (umask 077 && dd if=/dev/urandom of="$dir/munge.key" bs=128 count=1 2>/dev/null)
  munged --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" \
    --pid-file="$dir/munged.pid" --log-file="$dir/munged.log" --seed-file="$dir/munge.seed"
  slurmctld -c -f "$dir/slurm.conf"
  slurmd -c -f "$dir/slurm.conf"
  for _ in {1..100}; do
    if [ "$(sinfo --noheader --format=%t 2>/dev/null)" = idle ]; then return 0; fi
    sleep 0.3
  done
  stop
  unavailable "the node does not come up: $(tail -n 3 "$dir"/slurm*.log | tr '\n' ' ')"
}

stop() {
  local name pid
  scancel --user="$(id -un)" 2>/dev/null || true
  for name in slurmd slurmctld munged; do
    [ -e "$dir/$name.pid" ] || continue
    pid="$(cat "$dir/$name.pid")"
    kill "$pid" 2>/dev/null || continue
    for _ in {1..100}; do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.1
    done
  done
}

[ $# -eq 2 ] || { echo "usage: bash tests/launch/slurm.sh start|stop DIR" >&2; exit 2; }
dir="$2"
export SLURM_CONF="$dir/slurm.conf"
case "$1" in
  start) start ;;
  stop) stop ;;
  *) echo "error: $1 is neither start nor stop" >&2; exit 2 ;;
esac
