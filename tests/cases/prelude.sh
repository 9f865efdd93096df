# Read by the shell of every case before its first step.

# Runs a command in the network of the engine's host.
on_host() { nsenter --net="$HOST_NETNS" -- "$@"; }

# Runs a command in the network beyond the host, which has a web server at 192.0.2.1.
outside() { nsenter --net="$OUTSIDE_NETNS" -- "$@"; }

# Repeats a command until it succeeds, for ten seconds (times SLOW), and prints what it printed then.
eventually() {
  local left=$((100 * SLOW)) printed
  until printed=$("$@" 2>&1); do
    [ $((left -= 1)) -gt 0 ] || { printf 'never succeeded: %s\n%s\n' "$*" "$printed"; return 1; }
    sleep 0.1
  done
  [ -z "$printed" ] || printf '%s\n' "$printed"
}

# Sends a request to the engine as curl does it: api PATH [CURL ARGUMENT...].
api() { local path=$1; shift; curl --silent --show-error --max-time "$((30 * SLOW))" --unix-socket "$SOCKET" "$@" "http://docker$path"; }

# Prints an expression in Python over the JSON value v from standard input.
json() { "$PYTHON" -c "import json, sys; v = json.load(sys.stdin); print($1)"; }

# Prints the container's IPv4 address on the default bridge.
address_of() { docker inspect --format '{{.NetworkSettings.IPAddress}}' "$1"; }

# Prints the container's IPv4 address on a network: address_on NETWORK CONTAINER.
address_on() { docker inspect --format "{{(index .NetworkSettings.Networks \"$1\").IPAddress}}" "$2"; }

# Starts a web server that says "served" at /x: serve NAME [FLAG...].
serve() { docker run -d --name "$1" "${@:2}" busybox sh -c 'mkdir -p /www; echo served >/www/x; exec httpd -f -p 80 -h /www' >/dev/null; }

# Fetches a page from within a container, once: fetch CONTAINER URL.
fetch() { docker exec "$1" timeout 5 wget -q -O - "$2"; }

# Succeeds where a container does not get a page.
unreachable() { ! fetch "$@" >/dev/null 2>&1; }

# Asks the DNS server of a container's network: asked CONTAINER NAME [TYPE] [tcp] [edns].
asked() { local container=$1; shift; nsenter --net="/proc/$(docker inspect --format '{{.State.Pid}}' "$container")/ns/net" -- "$PYTHON" "$CASES/python/ask.py" "$@"; }

# Starts a registry on the host that has hello-world as Docker's has it, by plain HTTP: registry PORT. Its pid is in $registry.
registry() {
  printf 'version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: "0.0.0.0:%s"}\n' "$PWD/registry" "$1" >registry.yml
  on_host docker-registry serve registry.yml >registry.log 2>&1 & registry=$!
  eventually on_host bash -c "exec 3<>/dev/tcp/127.0.0.1/$1"
  on_host "$PYTHON" "$CASES/python/push.py" "$IMAGES/hello-world.tar" "127.0.0.1:$1" library/hello-world:latest
}

# Prints the layer of a test image as a tar archive.
layer_of() { tar --extract --to-stdout --file "$IMAGES/$1.tar" --wildcards '*/layer.tar'; }

# Waits for the Dory in a container. A command that names no host would start an engine of its own meanwhile.
engine_inside() { eventually docker exec "$1" dory -H unix:///run/dory/dory.sock version >/dev/null; }

# Types at a terminal: at_terminal 'COMMAND' with its input from standard input.
at_terminal() { script --quiet --return --command "$1" /dev/null; }

# What a case leaves over; its objects begin with the name in C.
cleanup() {
  local left
  left=$(docker ps --all --quiet --filter "name=$C")
  [ -z "$left" ] || docker rm --force --volumes $left
  left=$(docker volume ls --quiet --filter "name=$C")
  [ -z "$left" ] || docker volume rm --force $left
  left=$(docker network ls --quiet --filter "name=$C")
  [ -z "$left" ] || docker network rm $left
}
