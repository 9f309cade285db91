# shellcheck shell=bash
# Sourced by the scripts that start runs elsewhere: commands that a dry run prints instead.
dry_run=""

# Takes --dry_run out of the words, wherever it stands; `rest` is the others.
take_dry_run() {
  local word
  rest=()
  for word in "$@"; do
    if [ "$word" = --dry_run ]; then dry_run=1; else rest+=("$word"); fi
  done
}

# The words as a shell reads them back, whatever stands in them; words without specials stay plain.
quoted() {
  local word separator=""
  for word in "$@"; do
    if [[ ! $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]]; then word="'${word//\'/"'\\''"}'"; fi
    printf '%s%s' "$separator" "$word"
    separator=" "
  done
}

# Carries out a command, or prints it in a dry run.
execute() {
  if [ -n "$dry_run" ]; then
    printf '%s\n' "$(quoted "$@")"
  else
    "$@"
  fi
}

# What a dry run says between its commands.
remark() {
  if [ -n "$dry_run" ]; then printf '# %s\n' "$1"; fi
}

fail() {
  printf 'error: %s\n' "$1" >&2
  exit 2
}

# A name as Google Cloud and Kubernetes take it: it can be no option and no host.
check_name() {
  [[ $1 =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] ||
    fail "the name '$1' must have lower-case letters, digits and hyphens only"
}

# The comment at the head of the script.
usage() {
  awk 'NR == 1 || /^#SBATCH/ { next } !/^#/ { exit } { sub(/^# ?/, ""); print }' "$0"
}
