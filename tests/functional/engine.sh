#!/usr/bin/env bash
# engine.sh up|down: a docker engine for the functional tests where there is none, and an image to build on where no
# registry can be reached. For Debian, as root.
#
#   up    installs what is missing, starts dockerd if no engine answers, and makes the image qulo/python-base:local
#         (conftest.py takes it by itself when it is there). What is there already is left alone: a second `up` does
#         nothing. BASE_IMAGE=NAME up: that image is used instead, and none is made.
#   down  ends the engine that `up` started, and no other. The image stays.
#
# It must never restart or reconfigure an engine that somebody else runs.
set -euo pipefail

state=${QULO_FT_STATE:-/run/qulo-functional}
image=qulo/python-base:local

# Half seconds that an engine has to begin or to end: with containers to stop it takes ten seconds.
patience=80

say() { echo "engine.sh: $*" >&2; }
die() { say "$@"; exit 1; }
have() { command -v "$1" >/dev/null; }
answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }
has_compose() { docker compose version >/dev/null 2>&1 || docker-compose version >/dev/null 2>&1; }
has_image() { [ -n "${BASE_IMAGE:-}" ] || docker image inspect "$image" >/dev/null 2>&1; }
running() { [ "$(cat "/proc/$1/comm" 2>/dev/null)" = dockerd ]; }

up() {
  install_missing
  answers || start
  has_image || make_image
  say "engine $(docker version --format '{{.Server.Version}}'), base image ${BASE_IMAGE:-$image}"
}

install_missing() {
  local missing=()
  { have docker && { answers || have dockerd; }; } || missing+=(docker.io)
  has_compose || missing+=(docker-compose)
  has_image || have mmdebstrap || missing+=(mmdebstrap)
  have iptables || missing+=(iptables) # the tests lose packets with it
  have nsenter || missing+=(util-linux)
  [ ${#missing[@]} -gt 0 ] || return 0
  need_root "install ${missing[*]}"
  have apt-get || die "install these by hand, this is not Debian: ${missing[*]}"
  say "apt-get install ${missing[*]}"
  apt-get update -qq
  # Run level 1: the package's own script does not start an engine that `down` would then not know.
  RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
    apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
  have docker || die "there is still no program docker; install docker's client by hand"
}

need_root() { [ "$(id -u)" -eq 0 ] || die "must be root to $*"; }

start() {
  need_root "start an engine"
  mkdir -p "$state"
  forward_policy >"$state/forward"
  local left=/var/run/docker.pid pid try
  # After a reboot the number in it may be anybody's, and dockerd would believe it.
  [ ! -e "$left" ] || running "$(cat "$left")" || rm -f "$left"
  say "starting dockerd, log in $state/dockerd.log"
  setsid nohup dockerd --log-level=warn >"$state/dockerd.log" 2>&1 </dev/null &
  pid=$!
  echo "$pid" >"$state/dockerd.pid"
  for ((try = 0; try < patience; try++)); do
    ! answers || return 0
    running "$pid" || [ "$try" -lt 4 ] || break
    sleep 0.5
  done
  tail -n 20 "$state/dockerd.log" >&2
  down
  die "dockerd did not start; the end of its log is above"
}

forward_policy() { iptables -S FORWARD 2>/dev/null | awk '$1 == "-P" { print $3 }'; }

# What python:3.11-slim-bookworm is for the tests, from the packages and the mirror of this machine.
make_image() {
  need_root "make $image"
  # shellcheck source=/dev/null
  . /etc/os-release
  [ "${ID:-}" = debian ] || die "$image can be made on Debian only; BASE_IMAGE=NAME takes another one"
  local sources=() options=() file line
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do
    [ ! -s "$file" ] || sources+=("$file")
  done
  # What apt was told about its mirror holds for the image, too.
  while read -r line; do
    options+=("--aptopt=${line%;}")
  done < <(apt-config dump | grep -E '^Acquire::(Check-Valid-Until|Check-Date|https?::Proxy) "[^"]')
  local certificates=/etc/ssl/certs/ca-certificates.crt
  [ -e "$certificates" ] || die "$certificates is missing: apt-get install ca-certificates"
  say "making $image of $VERSION_CODENAME"
  # The hook gives root's pip what it has in the official image, and this machine's certificates: a mirror or an index
  # of packages may have one of its own.
  # shellcheck disable=SC2016
  mmdebstrap --quiet --mode=root --variant=apt --include=ca-certificates,python3,python3-pip \
    ${options[@]+"${options[@]}"} \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --customize-hook='rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED; ln -s python3 "$1/usr/bin/python"' \
    --customize-hook="copy-in $certificates ${certificates%/*}" \
    "$VERSION_CODENAME" - "${sources[@]}" |
    docker import --change "ENV PIP_CERT=$certificates SSL_CERT_FILE=$certificates" --change 'CMD ["python3"]' \
      - "$image" >/dev/null
}

down() {
  [ -e "$state/dockerd.pid" ] || { say "no engine was started by up"; return 0; }
  need_root "end the engine"
  local pid try policy
  pid=$(cat "$state/dockerd.pid")
  if running "$pid"; then
    kill -TERM "$pid" # it ends its containers itself
    for ((try = 0; try < patience; try++)); do
      running "$pid" || break
      sleep 0.5
    done
    ! running "$pid" || die "dockerd (PID $pid) does not end"
  fi
  # dockerd leaves this at DROP, and with it every other bridge of this machine cut off.
  policy=$(cat "$state/forward" 2>/dev/null)
  iptables -P FORWARD "${policy:-ACCEPT}"
  rm -f "$state/dockerd.pid" "$state/forward"
  say "the engine has ended"
}

case ${1:-} in
  up | down) "$1" ;;
  *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 64 ;;
esac
