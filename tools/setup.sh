#!/bin/sh
# Makes a bare Debian 12 (or newer) ready to build and test. Each step looks at what is there first,
# so that a second run does nothing.
#
#   tools/setup.sh [system] [rust] [python] [plugins] [models] [demo] [tpu_kernels]      default: system rust
#
# Downloads go through the ordinary clients (apt, pip, cargo) as they are configured. With
# TTPU_OFFLINE=1 nothing is downloaded and what is missing is named.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${TTPU_CACHE:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/ttpu}
export DEBIAN_FRONTEND=noninteractive

say() { echo "[setup] $*" >&2; }
stop() {
  say "$*"
  exit 1
}
offline() { case "${TTPU_OFFLINE:-}" in 1 | true | yes | on) return 0 ;; *) return 1 ;; esac; }
installed() { [ "$(dpkg-query -W -f '${Status}' "$1" 2>/dev/null)" = "install ok installed" ]; }

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo -n "$@" || stop "sudo asks for a password; run as root: $*"
  else
    stop "needs root; run as root: $*"
  fi
}

apt_install() {
  offline && stop "TTPU_OFFLINE is set and these Debian packages are missing: $*"
  command -v apt-get >/dev/null ||
    stop "no apt-get here; install by your own means what these Debian packages hold: $*"
  say "installing Debian packages: $*"
  [ -n "${apt_updated:-}" ] || as_root apt-get update -qq </dev/null >&2 ||
    stop "apt-get update failed; check the network and /etc/apt"
  apt_updated=1
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "$@" </dev/null >&2 ||
    stop "apt-get could not install: $*"
}

system() {
  missing=
  for package in $(grep -v '^#' "$here/setup/debian-packages.txt"); do
    installed "$package" || missing="$missing $package"
  done
  # shellcheck disable=SC2086 # a list
  [ -z "$missing" ] || apt_install $missing
}

# Prints the version of cargo as one number (1.87 is 1087), 0 without cargo.
cargo_version() {
  PATH="$PATH:${HOME:-/root}/.cargo/bin" cargo --version 2>/dev/null |
    awk '{ split($2, v, "."); print v[1] * 1000 + v[2]; found = 1 } END { if (!found) print 0 }'
}

# The crates need Rust 1.87. Debian 12 calls a compiler as new as that rustc-web, Debian 13 rustc.
rust() {
  [ "$(cargo_version)" -ge 1087 ] && return
  offline && stop "TTPU_OFFLINE is set and there is no cargo 1.87 or newer"
  say "no cargo 1.87 or newer here"
  if apt-cache show cargo-web >/dev/null 2>&1; then
    apt_install rustc-web cargo-web
  else
    apt_install rustc cargo
  fi
  [ "$(cargo_version)" -ge 1087 ] ||
    stop "cargo is still older than 1.87; install a newer Rust (rustup, or a newer Debian) and try again"
}

# The Python environment of the tests, made anew when its list of packages changes.
python() {
  requirements=$here/requirements-test.txt
  stamp=$cache/venv/.$(cat "$requirements" | sha256sum | cut -c 1-16)
  [ -e "$stamp" ] && return
  offline && stop "TTPU_OFFLINE is set and the test environment $cache/venv is missing or outdated"
  say "making the Python environment of the tests in $cache/venv"
  mkdir -p "$cache"
  rm -rf "$cache/venv"
  python3 -m venv "$cache/venv"
  "$cache/venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$requirements" >&2 ||
    stop "pip could not install $requirements"
  touch "$stamp"
}

# What lowers kernels for TPU; see tools/tpu_kernels. The wheel of the kernels is taken without what it
# depends on (torch, vLLM): the kernels need jax alone.
tpu_kernels() {
  venv=$cache/tpu-kernels-venv
  stamp=$venv/.$(cat "$here/tpu_kernels/requirements.txt" "$here/tpu_kernels/wheels.txt" | sha256sum | cut -c 1-16)
  if [ ! -e "$stamp" ]; then
    offline && stop "TTPU_OFFLINE is set and $venv is missing or outdated"
    say "making the Python environment that lowers TPU kernels in $venv"
    mkdir -p "$cache"
    rm -rf "$venv"
    python3 -m venv "$venv"
    pip="$venv/bin/pip --quiet --disable-pip-version-check"
    $pip install --requirement "$here/tpu_kernels/requirements.txt" >&2 &&
      $pip install --no-deps --requirement "$here/tpu_kernels/wheels.txt" >&2 ||
      stop "pip could not install what tools/tpu_kernels needs"
    touch "$stamp"
  fi
  mkdir -p "$venv/tool"
  rm -f "$venv/tool"/*.py
  cp "$here/tpu_kernels"/*.py "$venv/tool/"
}

plugins() { python3 "$here/wheels.py" plugin cpu cpu-0.81 tpu >/dev/null; }
models() { python3 "$here/fetch_models.py" >/dev/null; }
# What the demo runs, and no more.
demo() {
  python3 "$here/wheels.py" plugin cpu tpu >/dev/null
  python3 "$here/fetch_models.py" smollm2 >/dev/null
}

[ $# -gt 0 ] || set -- system rust
for step in "$@"; do
  case $step in
    system | rust | python | plugins | models | demo | tpu_kernels) $step ;;
    *) stop "there is no step '$step'; steps: system rust python plugins models demo tpu_kernels" ;;
  esac
done
