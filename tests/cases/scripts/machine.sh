# A machine of a case's own, for what an engine shares with others there: the network namespace HERE, and BEYOND it a web
# server at 198.51.100.1. To be sourced.

here() { nsenter --net="/proc/$HERE/ns/net" -- "$@"; }
beyond() { nsenter --net="/proc/$BEYOND/ns/net" -- "$@"; }

# The docker command for the machine's Dory.
ours() { docker -H "unix://$PWD/dory.sock" "$@"; }

# Makes the machine, with forwarding off.
machine() {
  local process
  unshare --net sleep 100000 & HERE=$!
  unshare --net sleep 100000 & BEYOND=$!
  for process in $HERE $BEYOND; do
    until [ "$(readlink /proc/$process/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.02; done
  done
  here ip link set lo up
  beyond ip link set lo up
  beyond ip link add wire type veth peer name wire netns $HERE
  beyond ip addr add 198.51.100.1/24 dev wire
  beyond ip link set wire up
  here ip addr add 198.51.100.2/24 dev wire
  here ip link set wire up
  here ip route add default via 198.51.100.1
  here sh -c 'echo 0 >/proc/sys/net/ipv4/ip_forward'
  mkdir -p www
  echo hello >www/hello
  nsenter --net="/proc/$BEYOND/ns/net" -- busybox httpd -f -p 198.51.100.1:80 -h www & WEB=$!
}

# Starts Dory on the machine, with an image: dory_here [FLAG...].
dory_here() {
  nsenter --net="/proc/$HERE/ns/net" -- "$DORY" serve --cgroup-parent "$CGROUP_PARENT" -H "unix://$PWD/dory.sock" --data-root "$PWD/dory" --exec-root "$PWD/dory-exec" "$@" 2>>dory.log & DAEMON=$!
  eventually ours version >/dev/null
  ours load --quiet --input "$IMAGES/busybox.tar" >/dev/null
}

# Ends everything.
machine_end() {
  local left
  left=$(ours ps -aq)
  [ -z "$left" ] || ours rm -f $left >/dev/null
  kill -TERM $DAEMON
  wait $DAEMON
  kill $HERE $BEYOND $WEB
}
