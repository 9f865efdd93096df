#!/bin/bash
# frozen_disk.sh NAME: an engine whose data lies on a filesystem that is frozen while containers print four megabytes.
set -eu
name=$1 root=$PWD/engine
export DOCKER_HOST=unix://$root/sock
mkdir -p "$root/disk" "$root/outside"
truncate -s 400M "$root/image"
mke2fs -q -F -t ext4 "$root/image"
mount -o loop "$root/image" "$root/disk"
finish() {
  fsfreeze --unfreeze "$root/disk" 2>/dev/null || true
  [ -z "${engine:-}" ] || { kill -TERM "$engine"; wait "$engine" || true; }
  umount "$root/disk"
}
trap finish EXIT

case $ENGINE in
  dory) set -- "$DORY" serve ;;
  *) set -- /usr/sbin/dockerd --pidfile "$root/pid" --config-file= ;;
esac
exec_root=$(mktemp -d)
# A network of its own: a dockerd with no bridge takes the bridge of the other one away.
unshare --net sh -c 'ip link set lo up; exec "$@"' sh "$@" --bridge none --cgroup-parent "$CGROUP_PARENT" -H "$DOCKER_HOST" \
  --data-root "$root/disk/data" --exec-root "$exec_root" >"$root/log" 2>&1 &
engine=$!
for _ in $(seq $((600 * SLOW))); do
  docker version >/dev/null 2>&1 && break
  sleep 0.05
done
docker load -q -i "$IMAGES/busybox.tar" >/dev/null
for mode in blocking non-blocking; do
  # What it waits for and what it makes lies on another filesystem.
  docker run -d --network none --log-opt mode=$mode --name "$name-$mode" -v "$root/outside:/outside" busybox sh -c \
    "while [ ! -e /outside/go ]; do sleep 0.05; done; head -c 4000000 /dev/zero | tr '\0' x | fold -w 99; touch /outside/$mode" >/dev/null
done
fsfreeze --freeze "$root/disk"
touch "$root/outside/go"
for _ in $(seq $((100 * SLOW))); do
  [ ! -e "$root/outside/non-blocking" ] || break
  sleep 0.1
done
# The other one had as much time; two seconds more are no proof, but a wrong answer would be one.
sleep 2
for mode in blocking non-blocking; do
  [ -e "$root/outside/$mode" ] && echo "$mode: goes on" || echo "$mode: held up"
done
fsfreeze --unfreeze "$root/disk"
docker wait "$name-blocking" "$name-non-blocking" >/dev/null
whole=$(docker logs "$name-blocking" | grep -cx 'x\{99\}')
kept=$(docker logs "$name-non-blocking" | grep -cx 'x\{99\}')
[ "$whole" = 40404 ] && [ "$kept" -gt 5000 ] && [ "$kept" -le "$whole" ] && \
  [ "$(docker logs "$name-non-blocking" | grep -vcx 'x\{99\}')" -le 1 ] && echo "after the thaw the logs are there, and lines are whole"
docker rm -f "$name-blocking" "$name-non-blocking" >/dev/null
