#!/bin/bash
# memory_limit.sh NAME: an engine of its own with little memory gets more to do than fits in there, and then more to keep.
set -eu
name=$1 root=$PWD/engine
export DOCKER_HOST=unix://$root/sock
mkdir -p "$root"
if [ -e /sys/fs/cgroup/memory/memory.limit_in_bytes ]; then
  group=/sys/fs/cgroup/memory/$CGROUP_PARENT-engine limit=memory.limit_in_bytes peak=memory.max_usage_in_bytes
else
  group=/sys/fs/cgroup/$CGROUP_PARENT-engine limit=memory.max peak=memory.peak
fi
mkdir -p "$group"
# The copy of the binary that shims run from counts too.
little=$(($(stat -L -c %s "$DORY") + (160 << 20))) plenty=$((4 << 30))

# Starts the engine; fails where it ends before it answers.
start() {
  (
    echo "$BASHPID" >"$group/cgroup.procs"
    exec nsenter --net="$HOST_NETNS" -- "$DORY" serve --bridge none --cgroup-parent "$CGROUP_PARENT" -H "$DOCKER_HOST" \
      --data-root "$root/data" --exec-root "$root/exec" 2>>"$root/log"
  ) &
  engine=$!
  for _ in $(seq $((600 * SLOW))); do
    docker version >/dev/null 2>&1 && return
    kill -0 "$engine" 2>/dev/null || return 1
    sleep 0.05
  done
  echo "the engine does not answer"
  return 1
}

# The engine's containers, with what they are.
state() { docker ps --all --no-trunc --format '{{.ID}} {{.Names}} {{.State}}' | sort; }

echo "$plenty" >"$group/$limit"
start || exit 1
docker load -q -i "$IMAGES/busybox.tar" >/dev/null
for i in 1 2 3; do
  docker run -d --network none --name "$name-$i" busybox sh -c 'i=0; while [ ! -e /stop ]; do i=$((i+1)); echo $i; sleep 0.02; done; echo last $i' >/dev/null
done
docker run -d --network none --name "$name-line" busybox sh -c 'head -c 60000000 /dev/zero | tr "\0" x; sleep 1000' >/dev/null
# Version 1 refuses a limit while too much of what is in memory was not written to the disk yet.
until echo "$little" >"$group/$limit"; do sync; sleep 0.2; done 2>/dev/null
"$PYTHON" "$CASES/python/memory_load.py" "$root/sock" "$name"
kill -0 "$engine" && echo "the engine lives"
cat "$group/$peak" >peak
# What containers are told to keep has no bound but the memory.
"$PYTHON" "$CASES/python/memory_fill.py" "$root/sock" "$name" >acknowledged
wait "$engine" || echo "filled: $?"
[ "$(wc -l <acknowledged)" -gt 2 ] && echo "containers were made"
if start; then kill -KILL "$engine"; wait "$engine" || true; fi 2>/dev/null
echo "$plenty" >"$group/$limit"
start || exit 1
echo "with more memory it opens"
state >found
missing=$(cut -d ' ' -f 1 found | sort | comm -13 - <(sort acknowledged))
[ -z "$missing" ] && echo "whatever was acknowledged is there"
[ "$(docker ps --quiet | wc -l)" = 4 ] && echo "containers lived on"
kill -KILL "$engine"; wait "$engine" || true
start || exit 1
state | diff found - && echo "another engine finds the same"
for i in 1 2 3; do
  docker exec "$name-$i" touch /stop
  docker wait "$name-$i" >/dev/null
  docker logs "$name-$i" | awk '/^last/ {if ($2 != n) {print "last is " $2 " but " n " lines"; exit 1}; next} {n++; if ($1 != n) {print "line " n " is " $1; exit 1}}'
done 2>&1 && echo "no line is missing"
docker rm -f $(docker ps --all --quiet) >/dev/null
kill -TERM "$engine"; wait "$engine" || true
