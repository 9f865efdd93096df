#!/bin/bash
# kill_loop.sh NAME TIMES: an engine of its own is killed TIMES times while three containers write numbered lines.
set -eu
name=$1 times=$2 root=$PWD/engine
export DOCKER_HOST=unix://$root/sock
mkdir -p "$root"

start() {
  nsenter --net="$HOST_NETNS" -- "$DORY" serve --bridge none --cgroup-parent "$CGROUP_PARENT" -H "$DOCKER_HOST" --data-root "$root/data" --exec-root "$root/exec" 2>>"$root/log" &
  engine=$!
  for _ in $(seq 200); do
    docker version >/dev/null 2>&1 && return
    sleep 0.05
  done
  echo "the engine does not answer"; tail "$root/log"; exit 1
}

start
docker load -q -i "$IMAGES/busybox.tar" >/dev/null
for i in 1 2 3; do
  docker run -d --network none --name "$name-$i" busybox sh -c 'i=0; while [ ! -e /stop ]; do i=$((i+1)); echo $i; done; echo last $i' >/dev/null
done
for _ in $(seq "$times"); do
  sleep "0.$((RANDOM % 5 + 1))"
  kill -KILL "$engine"; wait "$engine" 2>/dev/null || true
  sleep 0.2
  start
done
echo "$times kills"
[ "$(docker ps --quiet | wc -l)" = 3 ] && echo "every container was found"
for i in 1 2 3; do
  docker exec "$name-$i" touch /stop
  docker wait "$name-$i" >/dev/null
  docker logs "$name-$i" | awk '/^last/ {if ($2 != n) {print "last is " $2 " but " n " lines"; exit 1}; next} {n++; if ($1 != n) {print "line " n " is " $1; exit 1}}'
done && echo "no line is missing"
docker rm -f "$name-1" "$name-2" "$name-3" >/dev/null
kill -TERM "$engine"; wait "$engine" || true
