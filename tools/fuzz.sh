#!/bin/sh
# Runs each fuzz target of a build folder for a while: fuzz.sh BUILD_FOLDER [SECONDS]
# Starts from the committed corpus; new inputs stay in the build folder. A crash fails, and its input is
# kept in BUILD_FOLDER/fuzz/crashes: run the program on that file to see it again.
set -eu
build=$1
seconds=${2:-10}
corpora=$(cd "$(dirname "$0")/../tests/fuzz" && pwd)/corpus
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1}"
count=0
for program in "$build"/fuzz/*_fuzz; do
  [ -x "$program" ] || continue
  name=$(basename "$program" _fuzz)
  mkdir -p "$build/fuzz/found/$name" "$build/fuzz/crashes"
  seeds=$corpora/$name
  [ -d "$seeds" ] || seeds=
  log=$build/fuzz/$name.log
  if "$program" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 -max_len=65536 \
    -artifact_prefix="$build/fuzz/crashes/$name-" \
    "$build/fuzz/found/$name" ${seeds:+"$seeds"} >"$log" 2>&1; then
    echo "fuzz: $name: $(grep -E '^Done ' "$log" | tail -1)"
  else
    tail -60 "$log"
    echo "fuzz: $name FAILED; the input is in $build/fuzz/crashes"
    exit 1
  fi
  count=$((count + 1))
done
[ "$count" -gt 0 ] || { echo "fuzz: there are no fuzz targets in $build/fuzz"; exit 1; }
echo "fuzz: $count targets, no findings"
