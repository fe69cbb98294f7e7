#!/bin/sh
# Installs, upgrades and removes the Harrier agent of this host. A control plane serves this file at /install.sh, with its own version
# and the checksums of its agents written in; the same file lies at /opt/harrier/bin/harrier-agent-ctl afterwards.
#
# Nothing is done before the last line has arrived: everything above it is definitions.

set -eu
umask 022
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

# Written in by the control plane; empty in the copy that lies on a host.
BAKED_VERSION=''
BAKED_SERVER_URL=''
BAKED_SHA256_X64=''
BAKED_SHA256_ARM64=''

ROOT=/opt/harrier
AGENTS=$ROOT/agent
CTL=$ROOT/bin/harrier-agent-ctl
SETTINGS=/etc/harrier/agent.env
DATA=/var/lib/harrier-agent
LOGS=/var/log/harrier/agent
# Here from before a version is left until the next one is well or was taken back: the name of the former one's directory. Who finds it
# finishes what was cut short.
UPGRADING=$AGENTS/.upgrading
# The settings of that time, where the same command has changed them.
FORMER_SETTINGS=$AGENTS/.upgrading.env
ACCOUNT=harrier-agent
UNITS='harrier-launcher.service harrier-agent.service'
UNIT_DIRECTORY=/etc/systemd/system
# Seconds for a new agent to link; a host that is busy takes some to start it.
DEFAULT_WAIT=60
# Seconds that it must stay linked, before it counts as good.
SETTLE=5
# Seconds that the launcher may take to be replaced meanwhile, which the new agent sees to.
LAUNCHER_WAIT=20

usage() {
  cat <<'END'
harrier-agent-ctl: the Harrier agent of this host (as root)

  install     install and start the agent, and wait until it is linked; also repairs an installation
    --server-url URL          control plane (default: where this script came from)
    --join-token-file FILE    file with the token of `harrier agents token`, `-` for standard input
                              (default: the variable HARRIER_JOIN_TOKEN, else it is asked for)
    --set NAME=VALUE          setting of /etc/harrier/agent.env, can be repeated
    --yes                     install missing packages (bubblewrap, python3) without asking
    --wait SECONDS            how long to wait for the link (default 60)
  upgrade     bring the agent to the version of its control plane; running work goes on. An agent that does not link is
              replaced by the former one; what was cut short is finished, or taken back
    --version VERSION         another version that the control plane has
    --wait SECONDS            as above
  uninstall   stop what runs, and remove everything
    --keep-data               leave /var/lib/harrier-agent, /etc/harrier/agent.env, the logs and the user
  status      what is installed and how it fares; exit code 0 when the agent is linked
END
}

say() { printf '%s\n' "harrier-agent: $*"; }
warn() { printf '%s\n' "harrier-agent: $*" >&2; }
die() {
  warn "$@"
  exit 1
}
has() { command -v "$1" >/dev/null 2>&1; }

# --- what this host is -----------------------------------------------------------------------------------------------------------

require_root() {
  [ "$(id -u)" = 0 ] || die "this changes the system and must be run as root, for example with sudo"
}

require_systemd() {
  [ -d /run/systemd/system ] || die "this host was not started by systemd; run the agent in another way: see README.md"
}

architecture() {
  [ "$(uname -s)" = Linux ] || die "agents run on Linux; this is $(uname -s)"
  case $(uname -m) in
    x86_64) echo x64 ;;
    aarch64) echo arm64 ;;
    *) die "there are agents for x86_64 and aarch64; this host is $(uname -m)" ;;
  esac
}

# One run at a time; the system removes the lock with the process.
take_lock() {
  exec 9>/run/harrier-agent-ctl.lock
  flock -n 9 || die "another installation or upgrade is under way on this host"
}

# Names of packages for what is missing.
missing_packages() {
  has bwrap || echo bubblewrap
  has python3 || echo python3
  has curl || has wget || echo curl
}

# $1: yes when nobody is to be asked
ensure_packages() {
  missing=$(missing_packages | tr '\n' ' ')
  [ -n "$missing" ] || return 0
  if has apt-get; then
    command="apt-get install -y --no-install-recommends $missing"
  elif has dnf; then
    command="dnf install -y $missing"
  else
    die "missing: $missing(install them with this system's package manager, and run this again)"
  fi
  [ "$1" = yes ] || confirm "missing: $missing- install with \"$command\"?" ||
    die "missing: $missing(install with: $command; or run this with --yes)"
  if has apt-get; then DEBIAN_FRONTEND=noninteractive apt-get update -qq </dev/null || true; fi
  # The words of the command are known: names of packages from above.
  # shellcheck disable=SC2086
  DEBIAN_FRONTEND=noninteractive $command </dev/null >&2 || die "\"$command\" failed; what it wrote is above"
}

# Opens the terminal as 8, since standard input may be this script. False when there is none, which a subshell finds out: an exec whose
# redirection fails ends the shell.
open_terminal() {
  (exec 8<>/dev/tty) 2>/dev/null && exec 8<>/dev/tty
}

# Asks on the terminal. False when there is none.
confirm() {
  open_terminal || return 1
  printf '%s [y/N] ' "$1" >&8
  read -r reply <&8 || reply=
  exec 8>&-
  case $reply in y | Y | yes) return 0 ;; *) return 1 ;; esac
}

check_python() {
  python3 -I -c 'import sys; sys.exit(sys.version_info < (3, 9))' || die "Python 3.9 or newer is needed; $(python3 --version 2>&1)"
}

# As the agent's user: what a kernel forbids is told now, and not by the first call that fails.
check_sandbox() {
  runuser -u "$ACCOUNT" -- bwrap --unshare-user --unshare-pid --unshare-net --ro-bind / / --proc /proc --dev /dev true 2>"$WORK/bwrap" && return 0
  warn "bubblewrap cannot make a sandbox as the user $ACCOUNT: $(head -n 1 "$WORK/bwrap")"
  for name in kernel.unprivileged_userns_clone user.max_user_namespaces kernel.apparmor_restrict_unprivileged_userns; do
    value=$(sysctl -n "$name" 2>/dev/null) || continue
    warn "  $name is $value"
  done
  die "user namespaces must be allowed for it (on Ubuntu 24.04: kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for /usr/bin/bwrap)"
}

# --- settings --------------------------------------------------------------------------------------------------------------------

# These are written into a file that systemd reads, and used in URLs: nothing that quotes or ends a line.
check_url() {
  case $1 in
    *[!],[A-Za-z0-9:/._~%-]*) die "the address of the control plane has characters that do not belong there: $1" ;;
    http://?* | https://?*) ;;
    *) die "the address of the control plane must be http(s)://HOST[:PORT], not \"$1\"" ;;
  esac
}

check_token() {
  case $1 in
    '' | *[!A-Za-z0-9_-]*) die "what was given is not a join token; make one with: harrier agents token" ;;
  esac
}

check_version() {
  case $1 in
    '' | *[!A-Za-z0-9.+-]* | .* | -*) die "\"$1\" is not a version" ;;
  esac
}

check_seconds() {
  case $1 in
    '' | *[!0-9]*) die "--wait takes seconds, not \"$1\"" ;;
  esac
}

check_setting() {
  case $1 in
    HARRIER_[A-Z]*=* | PATH=* | NODE_EXTRA_CA_CERTS=* | HTTP_PROXY=* | HTTPS_PROXY=* | NO_PROXY=*) ;;
    *) die "--set takes NAME=VALUE with a setting of the agent, not \"$1\"" ;;
  esac
  case ${1%%=*} in
    HARRIER_JOIN_TOKEN) die "a join token in the arguments can be seen by other users; use --join-token-file" ;;
    *[!A-Z0-9_]*) die "\"${1%%=*}\" is not the name of a setting" ;;
  esac
  case ${1#*=} in
    *[\"\\\`\$\']* | *"$NEWLINE"*) die "the value of ${1%%=*} must not have quotes, dollars, backslashes or several lines" ;;
  esac
}
NEWLINE='
'

# $1: name. The value in the file, empty when there is none.
setting() {
  [ -f "$SETTINGS" ] || return 0
  sed -n "s/^$1=\"\{0,1\}\([^\"]*\)\"\{0,1\}\$/\1/p" "$SETTINGS" | tail -n 1
}

# $1: name; $2: value, empty to remove it.
change_setting() {
  mkdir -p "${SETTINGS%/*}"
  if [ -f "$SETTINGS" ]; then
    others=$(sed "/^$1=/d" "$SETTINGS")
  else
    others="# Settings of the Harrier agent, for harrier-agent.service and harrier-launcher.service. After a change:
# systemctl restart harrier-agent"
  fi
  printf '%s\n' "$others" ${2:+"$1=\"$2\""} | keep_private "$SETTINGS"
}

# $1: file, which gets what is on standard input. It is never there with other rights, nor half written. Whoever is killed here leaves
# the new one, with what is secret in it, under a name that the next change and an uninstallation remove.
keep_private() {
  rm -f "$1.new"
  (umask 077 && cat >"$1.new")
  sync "$1.new"
  mv -fT "$1.new" "$1"
}

# As the agent's user, who owns the file and could have put a link in its place.
agent_id() {
  runuser -u "$ACCOUNT" -- sed -n 's/^ *"agentId": "\([0-9a-f-]\{1,\}\)".*/\1/p' "$DATA/identity.json" 2>/dev/null || true
}

# $1: file, `-`, or empty. Sets TOKEN: from there, from the environment, or from whoever sits at the terminal.
read_token() {
  case $1 in
    '') TOKEN=${HARRIER_JOIN_TOKEN:-} ;;
    -) read -r TOKEN || true ;;
    *)
      [ -r "$1" ] || die "the join token cannot be read from $1"
      read -r TOKEN <"$1" || true
      ;;
  esac
  unset HARRIER_JOIN_TOKEN
  if [ -z "$TOKEN" ] && open_terminal; then
    # Before the question: who answers at once is not to see it either.
    stty -echo <&8 2>/dev/null || true
    printf 'Join token (harrier agents token): ' >&8
    read -r TOKEN <&8 || true
    stty echo <&8 2>/dev/null || true
    echo >&8
    exec 8>&-
  fi
  [ -n "$TOKEN" ] || die "a join token is needed: make one with \"harrier agents token\" and give it in HARRIER_JOIN_TOKEN or with --join-token-file FILE"
  check_token "$TOKEN"
}

# --- files -----------------------------------------------------------------------------------------------------------------------

# Everything is prepared in a directory that only root can enter, and that goes with this process. Whoever could write to those above
# could put another agent there.
make_work() {
  mkdir -p "$AGENTS"
  for directory in "$ROOT" "$AGENTS"; do
    case $(stat -L -c '%u %A' "$directory") in
      '0 d'????-??-?) ;;
      *) die "$directory must belong to root and must not be writable for others: $(stat -L -c '%U %A' "$directory")" ;;
    esac
  done
  remove_left_work
  WORK=$(mktemp -d "$AGENTS/.work-$$-XXXXXX")
  trap 'rm -rf "$WORK"' EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM
}

# What was killed could not remove its own, which may be what fills the disk. That of a process that lives is left: an upgrade hands over
# to the control plane's own script.
remove_left_work() {
  for directory in "$AGENTS"/.work-*; do
    owner=${directory##*/.work-}
    [ -d "/proc/${owner%-*}" ] || rm -rf "$directory"
  done
}

# $1: URL; $2: file
fetch() {
  if has curl; then
    curl --fail --silent --show-error --proto '=http,https' --connect-timeout 15 --retry 3 --output "$2" -- "$1"
  else
    wget --quiet --timeout=30 --tries=3 --output-document="$2" -- "$1"
  fi || die "$1 could not be fetched"
}

# $1: version; $2: checksum; $3: control plane; $4: architecture
download() {
  [ -n "$2" ] || die "the control plane has no agent $1 for $4; build one there: npm run build:agent -- $4"
  name=harrier-agent-$1-linux-$4.tar.gz
  say "fetching $name"
  case $3 in
    https://*) ;;
    *) warn "$3 is not https: whoever is between this host and it can give it another agent" ;;
  esac
  fetch "$3/install/$name" "$WORK/$name"
  printf '%s  %s\n' "$2" "$WORK/$name" | sha256sum --check --status - ||
    die "$name is not what the control plane announced: its SHA-256 is $(sha256sum <"$WORK/$name" | cut -d ' ' -f 1), not $2"
  unpack "$(directory_of "$1" "$2")" "$WORK/$name" "$2"
}

# $1: version; $2: checksum. The name of its directory. The same version with other content gets another one: what is there stays whole,
# to run until the switch, and to go back to.
directory_of() { printf '%s-%.12s\n' "$1" "$2"; }

# $1: name of a directory. What a person calls it.
version_of() { printf '%s\n' "$1" | sed 's/-[0-9a-f]\{12\}$//'; }

# $1: name of the directory; $2: file; $3: its checksum
unpack() {
  mkdir "$WORK/new"
  tar -xzf "$2" -C "$WORK/new" --strip-components=1 --no-same-owner
  "$WORK/new/bin/node" --version >/dev/null 2>"$WORK/node" ||
    die "the agent's Node.js does not start here: $(tail -n 1 "$WORK/node") (Debian, Ubuntu: apt-get install libstdc++6; Fedora, RHEL: dnf install libstdc++)"
  printf '%s\n' "$3" >"$WORK/new/.sha256"
  # A host that loses its power must not find a directory with the right name and empty files.
  sync -f "$WORK/new"
  # Not whole, else it would not be fetched: its removal was cut short.
  [ ! -e "$AGENTS/$1" ] || mv -T "$AGENTS/$1" "$WORK/old"
  mv -T "$WORK/new" "$AGENTS/$1"
}

# $1: name of the directory; $2: checksum. Whether it lies there as the control plane has it.
is_unpacked() {
  [ "$(cat "$AGENTS/$1/.sha256" 2>/dev/null)" = "$2" ]
}

current() { readlink "$AGENTS/current" 2>/dev/null || true; }

# $1: name of a directory. At no moment is there none, nor a half one.
switch_to() {
  ln -s "$1" "$WORK/current"
  mv -fT "$WORK/current" "$AGENTS/current"
  for unit in $UNITS; do
    install -m 0644 "$AGENTS/$1/systemd/$unit" "$UNIT_DIRECTORY/$unit.new"
    sync "$UNIT_DIRECTORY/$unit.new"
    mv -fT "$UNIT_DIRECTORY/$unit.new" "$UNIT_DIRECTORY/$unit"
  done
  mkdir -p "${CTL%/*}"
  ln -s ../agent/current/bin/harrier-agent-ctl "$WORK/ctl"
  mv -fT "$WORK/ctl" "$CTL"
  systemctl daemon-reload
}

# Versions that neither are current, nor were before, nor have anything running.
# $1: name of the directory of the one before
prune() {
  for directory in "$AGENTS"/*; do
    name=${directory##*/}
    case $name in current | "$(current)" | "$1") continue ;; esac
    grep -qsF "$directory/" /proc/[0-9]*/cmdline /proc/[0-9]*/mountinfo && continue
    # First out of the way: what is removed by half must not be taken for whole.
    mv -T "$directory" "$WORK/pruned"
    rm -rf "$WORK/pruned"
  done
}

# Also of what the unit names: where there is no such group it would not start. It comes with the journal, as a rule.
make_account() {
  getent group systemd-journal >/dev/null || groupadd --system systemd-journal
  id -u "$ACCOUNT" >/dev/null 2>&1 && return 0
  shell=/usr/sbin/nologin
  [ -x "$shell" ] || shell=/sbin/nologin
  useradd --system --user-group --no-create-home --home-dir "$DATA" --shell "$shell" --comment 'Harrier agent' "$ACCOUNT"
}

# --- how the agent fares ---------------------------------------------------------------------------------------------------------

property() { systemctl show --property="$2" --value "$1" 2>/dev/null || true; }

is_linked() {
  [ "$(property harrier-agent.service ActiveState)" = active ] || return 1
  case $(property harrier-agent.service StatusText) in 'Linked to '*) return 0 ;; *) return 1 ;; esac
}

is_well() { is_linked && [ "$(property harrier-launcher.service ActiveState)" = active ]; }

# $1: seconds. Whether the agent links, and is linked some seconds later, as the same process and with a launcher.
wait_until_well() {
  wait_for "$1" is_linked || return 1
  process=$(property harrier-agent.service MainPID)
  sleep "$SETTLE"
  wait_for "$LAUNCHER_WAIT" is_well && [ "$process" = "$(property harrier-agent.service MainPID)" ]
}

# $1: seconds; $2: a command. Whether it succeeds in time.
wait_for() {
  left=$1
  until "$2"; do
    [ "$left" -gt 0 ] || return 1
    left=$((left - 1))
    sleep 1
  done
}

show_log() {
  warn "the last lines of its log (journalctl -u harrier-agent -u harrier-launcher):"
  journalctl --unit=harrier-agent.service --unit=harrier-launcher.service --lines=15 --no-pager --output=cat >&2 2>/dev/null || true
}

describe() {
  state=$(property harrier-agent.service ActiveState)
  case $state in
    # What it said last is true no more.
    failed | inactive) text="$(property harrier-agent.service Result) $(property harrier-agent.service ExecMainStatus)" ;;
    *) text=$(property harrier-agent.service StatusText) ;;
  esac
  say "$(version_of "$(current)"): $state; $text"
}

# --- commands --------------------------------------------------------------------------------------------------------------------

do_install() {
  server=$BAKED_SERVER_URL token_file='' yes=no wait=$DEFAULT_WAIT settings=''
  while [ $# -gt 0 ]; do
    case $1 in
      --yes) yes=yes ;;
      --server-url | --join-token-file | --set | --wait)
        [ $# -gt 1 ] || die "$1 needs a value"
        case $1 in
          --server-url) server=$2 ;;
          --join-token-file) token_file=$2 ;;
          --wait) check_seconds "$2" && wait=$2 ;;
          --set) check_setting "$2" && settings="$settings$2$NEWLINE" ;;
        esac
        shift
        ;;
      *) die "install does not know \"$1\"; see: harrier-agent-ctl help" ;;
    esac
    shift
  done
  [ -n "$BAKED_VERSION" ] || die "this copy installs nothing; take that of the control plane: curl -fsSL URL/install.sh"
  require_systemd
  check_url "$server"
  machine=$(architecture)
  take_lock
  ensure_packages "$yes"
  check_python
  joined=$(agent_id)
  TOKEN=
  [ -n "$joined" ] || read_token "$token_file"
  make_account
  make_work
  check_sandbox
  sum=$(checksum "$machine")
  before=$(current)
  target=$(directory_of "$BAKED_VERSION" "$sum")
  fetched=no
  if ! is_unpacked "$target" "$sum"; then
    download "$BAKED_VERSION" "$sum" "$BAKED_SERVER_URL" "$machine"
    fetched=yes
  fi

  if is_upgrading || { [ -n "$before" ] && [ "$before" != "$target" ]; }; then begin_upgrade "$before" with-settings; fi
  settings_before=$(sort "$SETTINGS" 2>/dev/null || true)
  change_setting HARRIER_SERVER_URL "$server"
  [ -z "$TOKEN" ] || change_setting HARRIER_JOIN_TOKEN "$TOKEN"
  printf '%s' "$settings" >"$WORK/settings"
  while IFS= read -r line; do change_setting "${line%%=*}" "${line#*=}"; done <"$WORK/settings"

  if is_upgrading; then
    change_version "$target" "$wait"
  else
    switch_to "$target"
    systemctl enable --quiet harrier-agent.service
    if [ "$fetched" = no ] && [ "$settings_before" = "$(sort "$SETTINGS")" ] && is_well; then
      say "nothing has changed"
      describe
      return
    fi
    systemctl restart --no-block harrier-agent.service
    if ! wait_until_well "$wait"; then
      show_log
      describe
      die "installed, but not linked to $server within $wait s; the agent goes on trying. When what is wrong is mended, run this again"
    fi
  fi
  # It is good for one agent, once; now nothing is left of it.
  change_setting HARRIER_JOIN_TOKEN ''
  describe
}

checksum() {
  case $1 in x64) echo "$BAKED_SHA256_X64" ;; arm64) echo "$BAKED_SHA256_ARM64" ;; esac
}

do_upgrade() {
  version=$BAKED_VERSION wait=$DEFAULT_WAIT
  while [ $# -gt 0 ]; do
    case $1 in
      --version | --wait)
        [ $# -gt 1 ] || die "$1 needs a value"
        case $1 in
          --version) check_version "$2" && version=$2 ;;
          --wait) check_seconds "$2" && wait=$2 ;;
        esac
        shift
        ;;
      *) die "upgrade does not know \"$1\"; see: harrier-agent-ctl help" ;;
    esac
    shift
  done
  require_systemd
  [ -n "$(current)" ] || die "there is no agent in $AGENTS; install one first"
  make_work
  if [ -z "$BAKED_VERSION" ] || [ "$version" != "$BAKED_VERSION" ]; then
    hand_over "$version" "$wait"
  fi
  take_lock
  machine=$(architecture)
  sum=$(checksum "$machine")
  target=$(directory_of "$version" "$sum")
  if [ "$(current)" = "$target" ] && is_unpacked "$target" "$sum" && ! is_upgrading; then
    is_well || restart_current "$wait"
    say "$version is installed already"
    describe
    return
  fi
  is_unpacked "$target" "$sum" || download "$version" "$sum" "$BAKED_SERVER_URL" "$machine"
  make_account
  begin_upgrade "$(current)"
  change_version "$target" "$wait"
  describe
}

# $1: seconds to wait. For the version that was asked for, which is there and does not fare well.
restart_current() {
  warn "the agent is not well; restarting it"
  systemctl restart --no-block harrier-agent.service
  wait_until_well "$1" && return
  show_log
  describe
  die "$(version_of "$(current)") is installed, but not linked within $1 s; the agent goes on trying"
}

# $1: version, empty for that of the control plane; $2: seconds to wait. Lets the control plane's own script do it, which knows what it
# brings, and ends as that does. Of several control planes the first one that answers.
hand_over() {
  query=${1:+?version=$1}
  servers=${BAKED_SERVER_URL:-$(setting HARRIER_SERVER_URL)}
  [ -n "$servers" ] || die "$SETTINGS does not say where the control plane is (HARRIER_SERVER_URL)"
  check_url "$servers"
  for server in $(printf '%s' "$servers" | tr ',' ' '); do
    (fetch "${server%/}/install.sh$query" "$WORK/install.sh") || continue
    status=0
    sh "$WORK/install.sh" upgrade --wait "$2" || status=$?
    exit "$status"
  done
  die "no control plane has brought its installer; the agent is left as it is"
}

# Whether a version was left and the next one has not shown yet that it is well: by this process, or by one that was killed.
is_upgrading() { [ -e "$UPGRADING" ]; }

# $1: name of the directory of the version that is left; $2: with-settings to keep these, too. One that was left earlier, for one that
# has never shown that it is well, stays the one to go back to.
begin_upgrade() {
  if is_upgrading; then
    warn "an upgrade from $(cat "$UPGRADING") was cut short"
  else
    rm -f "$FORMER_SETTINGS"
  fi
  if [ -n "${2:-}" ] && [ -f "$SETTINGS" ] && [ ! -f "$FORMER_SETTINGS" ]; then
    keep_private "$FORMER_SETTINGS" <"$SETTINGS"
  fi
  is_upgrading || printf '%s\n' "$1" | keep_private "$UPGRADING"
}

# In this order: settings without the other one are of no upgrade, and removed by the next.
end_upgrade() { rm -f "$UPGRADING" "$FORMER_SETTINGS"; }

# $1: name of the directory of the new version; $2: seconds to wait. After begin_upgrade. The agent is restarted; the launcher, and what
# it runs, is not.
change_version() {
  former=$(cat "$UPGRADING")
  is_linked || warn "the agent is not linked now; the new one has to be, or the old one comes back"
  say "$former -> $1"
  switch_to "$1"
  systemctl restart --no-block harrier-agent.service
  if wait_until_well "$2"; then
    end_upgrade
    prune "$former"
    return
  fi
  warn "$1 did not get well within $2 s: $(property harrier-agent.service ActiveState); $(property harrier-agent.service StatusText)"
  show_log
  go_back "$former" "$1"
}

# $1: name of the directory of the former version; $2: of the one that is not well. Does not return.
go_back() {
  if [ ! -d "$AGENTS/$1" ] || [ "$1" = "$2" ]; then
    end_upgrade
    die "there is no former version to go back to; the agent goes on trying"
  fi
  # Before the switch: after it nobody would look for them.
  [ ! -f "$FORMER_SETTINGS" ] || keep_private "$SETTINGS" <"$FORMER_SETTINGS"
  rm -f "$WORK/current" "$WORK/ctl"
  switch_to "$1"
  # A launcher of the new version may be waiting to fail again; one that runs something is not touched.
  [ "$(property harrier-launcher.service ActiveState)" = active ] || systemctl restart --no-block harrier-launcher.service
  systemctl restart --no-block harrier-agent.service
  end_upgrade
  if wait_until_well "$DEFAULT_WAIT"; then
    prune "$1"
    die "went back to $1, which is linked again"
  fi
  die "went back to $1, which is not linked either: $(property harrier-agent.service StatusText)"
}

do_uninstall() {
  keep=no
  while [ $# -gt 0 ]; do
    case $1 in
      --keep-data) keep=yes ;;
      *) die "uninstall does not know \"$1\"; see: harrier-agent-ctl help" ;;
    esac
    shift
  done
  take_lock
  joined=$(agent_id)
  if [ -d /run/systemd/system ]; then
    for unit in harrier-agent.service harrier-launcher.service; do
      systemctl disable --quiet --now "$unit" 2>/dev/null || true
      # Also when it is a unit of another kind of installation by now, or hangs.
      systemctl kill --signal=KILL "$unit" 2>/dev/null || true
    done
  fi
  remove_containers
  cancel_jobs
  for unit in $UNITS; do rm -rf "${UNIT_DIRECTORY:?}/$unit" "${UNIT_DIRECTORY:?}/$unit.d"; done
  if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    for unit in $UNITS; do systemctl reset-failed "$unit" 2>/dev/null || true; done
  fi
  # What is removed by half must not be taken for whole by the next installation.
  rm -f "$AGENTS/current" "$AGENTS"/*/.sha256
  rm -rf "$AGENTS" "$CTL"
  rm -f "$SETTINGS.new"
  remove_empty "$ROOT/bin" "$ROOT"
  if [ "$keep" = no ]; then
    rm -f "$SETTINGS"
    remove_trees "$DATA" "$LOGS"
    remove_empty "${SETTINGS%/*}" "${LOGS%/*}"
    remove_account
  fi
  rm -f /run/harrier-agent-ctl.lock
  say "removed$([ "$keep" = no ] || echo "; $DATA, $SETTINGS and $LOGS are left")"
  [ -z "$joined" ] || [ "$keep" = yes ] || say "the control plane still lists it: harrier agents rm $joined"
}

# Containers outlive their agent.
remove_containers() {
  has docker || return 0
  containers=$(docker ps --all --quiet --filter "label=harrier.agent=$DATA" 2>/dev/null) || return 0
  # Ids, one a word.
  # shellcheck disable=SC2086
  [ -z "$containers" ] || docker rm --force $containers >/dev/null || warn "containers of the agent could not be removed"
}

# Jobs of Slurm outlive their agent, too, which is stopped first: it would have them run elsewhere. Their numbers are in files that the
# agent's user could have written anything to: they are read, and ended, with no more rights than that user has.
cancel_jobs() {
  numbers=$(as_agent sed -n 's/^"\([0-9]\{1,\}\)"$/\1/p' "$DATA"/slurm/attempts/*/job.json 2>/dev/null) || true
  [ -n "$numbers" ] || return 0
  say "cancelling jobs of Slurm: $(printf '%s' "$numbers" | tr '\n' ' ')"
  path=$(setting PATH) configuration=$(setting SLURM_CONF)
  # Numbers, one a word. A controller that is away is waited for by the command itself, and then for as long as this.
  # shellcheck disable=SC2086
  said=$(as_agent timeout 120 env PATH="${path:-$PATH}" ${configuration:+SLURM_CONF="$configuration"} scancel --quiet $numbers 2>&1) ||
    said=$(printf '%s\n' "${said:-it did not answer}" | grep -viE 'invalid job id|already complet') || return 0
  [ -z "$said" ] || warn "jobs of Slurm may go on until their lease ends (scancel: $said)"
}

as_agent() { runuser -u "$ACCOUNT" -- "$@"; }

# One that still has a process, for example of a job of Slurm on this host, cannot be removed; nothing else waits for that.
remove_account() {
  if id -u "$ACCOUNT" >/dev/null 2>&1 && ! userdel "$ACCOUNT"; then
    warn "the user $ACCOUNT could not be removed: see \"ps -u $ACCOUNT\", and then run: userdel $ACCOUNT"
    return
  fi
  if getent group "$ACCOUNT" >/dev/null; then groupdel "$ACCOUNT" || warn "the group $ACCOUNT could not be removed"; fi
}

# One that is a file system of its own is emptied: its mount is the host's.
remove_trees() {
  for directory in "$@"; do
    if mountpoint --quiet "$directory" 2>/dev/null; then
      find "$directory" -xdev -mindepth 1 -delete
      chown 0:0 "$directory"
      say "$directory is a file system of its own, and is left empty"
    else
      rm -rf "$directory"
    fi
  done
}

remove_empty() {
  for directory in "$@"; do
    [ ! -d "$directory" ] || rmdir --ignore-fail-on-non-empty "$directory"
  done
}

do_status() {
  [ -n "$(current)" ] || die "there is no agent in $AGENTS"
  describe
  ! is_upgrading || warn "an upgrade is under way, or was cut short: \"harrier-agent-ctl upgrade\" finishes it"
  is_linked
}

main() {
  case ${1:-install} in
    -h | --help | help)
      usage
      return
      ;;
    -*) command=install ;;
    *)
      command=${1:-install}
      [ $# -eq 0 ] || shift
      ;;
  esac
  case $command in
    install | upgrade | uninstall)
      require_root
      "do_$command" "$@"
      ;;
    status) do_status ;;
    *) die "there is no \"$command\"; see: harrier-agent-ctl help" ;;
  esac
}

main "$@"
