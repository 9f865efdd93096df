#!/bin/bash
# network_kill_loop.sh NAME TIMES: an engine of its own is killed TIMES times in the middle of connect, disconnect, start and
# remove, while a connection between two containers goes on. At the end nothing that no record claims may be left.
# More rounds: ROUNDS=200 cargo xtask blackbox --engine dory "killed while networks"
set -eu
name=$1 times=${ROUNDS:-$2} root=$PWD/engine
export DOCKER_HOST=unix://$root/sock
mkdir -p "$root"

start() {
  nsenter --net="$HOST_NETNS" -- "$DORY" serve --bridge "k$$" --cgroup-parent "$CGROUP_PARENT" -H "$DOCKER_HOST" --data-root "$root/data" --exec-root "$root/exec" 2>>"$root/log" &
  engine=$!
  for _ in $(seq 400); do
    docker version >/dev/null 2>&1 && return
    sleep 0.05
  done
  echo "the engine does not answer"; tail "$root/log"; exit 1
}

# Succeeds within twenty seconds, or says what did not.
await() { for _ in $(seq 200); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done; echo "never succeeded: $*"; tail "$root/log"; exit 1; }

beat() { docker exec "$name-client" cat /tmp/beat; }

start
docker load -q -i "$IMAGES/busybox.tar" >/dev/null
one=$(docker network create "$name-one")
two=$(docker network create "$name-two")
docker run -d --name "$name-server" --network "$name-one" busybox sh -c 'cat /dev/zero | nc -l -p 9000' >/dev/null
address=$(docker inspect -f "{{(index .NetworkSettings.Networks \"$name-one\").IPAddress}}" "$name-server")
docker run -d --name "$name-client" --network "$name-one" busybox sh -c "until nc $address 9000 | while dd bs=65536 count=16 of=/dev/null 2>/dev/null; do date +%s%N >/tmp/beat; done; do sleep 0.1; [ ! -e /tmp/beat ] || { echo lost; exit 3; }; done" >/dev/null
await docker exec "$name-client" test -s /tmp/beat
docker create --name "$name-third" --network "$name-two" -p 80 busybox sleep 100000 >/dev/null

for round in $(seq "$times"); do
  case $((round % 4)) in
    0) docker network connect "$name-two" "$name-client" ;;
    1) docker network disconnect "$name-two" "$name-client" ;;
    2) docker start "$name-third" ;;
    3) docker rm -f "$name-third"; docker create --name "$name-third" --network "$name-two" -p 80 busybox sleep 100000 ;;
  esac >/dev/null 2>&1 &
  request=$!
  sleep "0.0$((RANDOM % 8 + 1))"
  kill -KILL "$engine"; wait "$engine" 2>/dev/null || true
  wait "$request" 2>/dev/null || true
  start
  docker inspect "$name-third" >/dev/null 2>&1 || docker create --name "$name-third" --network "$name-two" -p 80 busybox sleep 100000 >/dev/null
done
echo "$times kills"
last=$(beat); moved() { [ "$(beat)" != "$last" ]; }; await moved && echo "the connection goes on"
docker network disconnect "$name-two" "$name-client" >/dev/null 2>&1 || true
docker network connect "$name-two" "$name-client" && echo "the client can be connected"
docker rm -f "$name-third" "$name-server" "$name-client" >/dev/null
docker network rm "$name-one" "$name-two" >/dev/null && echo "nothing uses the networks"
owner=$(sed 's/.*"id":"\([0-9a-f]*\)-.*/\1/' "$root/data/engine.json")
ours() { nsenter --net="$HOST_NETNS" -- ip -o link | grep -c "alias dory:$owner:" || true; }
# The default bridge alone is left.
alone() { [ "$(ours)" -le 1 ]; }
await alone && echo "no interface is left"
kill -TERM "$engine"; wait "$engine" || true
start
nsenter --net="$HOST_NETNS" -- nft list tables 2>/dev/null | grep -cE "br-(${one:0:12}|${two:0:12})" || true
await alone && echo "nor after a restart"
kill -TERM "$engine"; wait "$engine" || true
