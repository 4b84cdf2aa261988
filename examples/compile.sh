#!/bin/sh
# Which TPU slice holds a model? Compiles it for several slices that this machine need not have and
# prints a line each: memory of one device, and what one decode step takes and is limited by.
#
#   examples/compile.sh MODEL [TOPOLOGY ...]          default: v5e:2x2 v6e:2x2
#
# MODEL may be a folder with nothing but a config.json. $TTPU is the command, else build/ttpu.
set -eu
if [ $# -eq 0 ]; then
  sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
ttpu=${TTPU:-$(dirname "$0")/../build/ttpu}
model=$1
shift
[ $# -gt 0 ] || set -- v5e:2x2 v6e:2x2

report=$(mktemp)
trap 'rm -f "$report"' EXIT
for topology in "$@"; do
  "$ttpu" compile "$model" --topology "$topology" --json >"$report"
  python3 - "$topology" "$report" <<'END'
import json
import sys

topology, report = sys.argv[1:]
decode = json.load(open(report, encoding="utf-8"))["decode"]
print(f"{topology}: {decode['total_bytes'] / 1e9:.3f} of {decode['hbm_bytes'] / 1e9:.1f} GB a device, "
      f"{decode['step_seconds'] * 1e3:.3f} ms a decode step, limited by {decode['bound']}")
END
done
