#!/bin/sh
# In place of Ryuk, whose image cannot be had here: takes filters on port 8080, one a line, and answers each with ACK. When
# the client has gone, whatever matches them is removed by the socket that it was given.
export DOCKER_HOST=unix:///var/run/docker.sock
if [ "${1:-}" != session ]; then
  echo "reaper Started!"
  exec nc -l -p 8080 -e /reaper.sh session
fi
filters=
while read -r filter; do
  filters="$filters --filter $(printf %s "$filter" | tr -d '\r')"
  echo ACK
done
[ -n "$filters" ] || exit 0
for container in $(dory ps --all --quiet $filters); do dory rm --force --volumes "$container"; done >&2
for network in $(dory network ls --quiet $filters); do dory network rm "$network"; done >&2
for volume in $(dory volume ls --quiet $filters); do dory volume rm "$volume"; done >&2
