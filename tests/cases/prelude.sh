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

# Runs a program of this machine in a container's network: inside CONTAINER COMMAND....
inside() { local container=$1; shift; nsenter --net="/proc/$(docker inspect --format '{{.State.Pid}}' "$container")/ns/net" -- "$@"; }

# Asks the DNS server of a container's network: asked CONTAINER NAME [TYPE] [tcp] [edns].
asked() { local container=$1; shift; inside "$container" "$PYTHON" "$CASES/python/ask.py" "$@"; }

# Prints the layer of a test image as a tar archive.
layer_of() { tar --extract --to-stdout --file "$IMAGES/$1.tar" --wildcards '*/layer.tar'; }

# Waits for the Dory in a container. A command that names no host would start an engine of its own meanwhile.
engine_inside() { eventually docker exec "$1" dory -H unix:///run/dory/dory.sock version >/dev/null; }

# Types at a terminal: at_terminal 'COMMAND' with its input from standard input.
at_terminal() { script --quiet --return --command "$1" /dev/null; }

# Starts Debian's docker-registry in the network of the engine's host: registry NAME PORT [YAML [ADDRESS]]. R is what
# its images are called by.
registry() {
  R=${4:-localhost}:$2
  printf 'version: 0.1\nstorage: {filesystem: {rootdirectory: %s/registry-%s}, delete: {enabled: true}}\nhttp:\n  addr: %s:%s\n%s\n' \
    "$PWD" "$1" "${4:-127.0.0.1}" "$2" "${3:-}" >registry.yml
  nsenter --net="$HOST_NETNS" -- docker-registry serve registry.yml >registry.log 2>&1 &
  REGISTRY=$!
  eventually on_host curl --silent --insecure ${CLIENT_CERTIFICATE:+--cert client.cert --key client.key} --output /dev/null "${SCHEME:-http}://$R/v2/"
}

# Starts one for all the world that has hello-world as Docker's has it: mirror PORT.
mirror() {
  registry mirror "$1" '' 0.0.0.0
  on_host "$PYTHON" "$CASES/python/push.py" "$IMAGES/hello-world.tar" "127.0.0.1:$1" library/hello-world:latest
}

# Starts a web server of a directory on the engine's host, W being its address: web DIRECTORY. It writes web.log.
web() {
  local port=$((32000 + RANDOM % 700))
  W=127.0.0.1:$port
  nsenter --net="$HOST_NETNS" -- "$PYTHON" "$CASES/python/web.py" "$port" "$1" >>web.log 2>>web.err &
  WEB=$!
  eventually on_host curl --silent --output /dev/null "http://$W/"
  : >web.log
}

# Ends the registry.
registry_end() { kill $REGISTRY; wait $REGISTRY 2>/dev/null; REGISTRY=; }

# Makes PASSWORDS, the registry's configuration for one user: registry_password USER PASSWORD.
registry_password() {
  htpasswd -Bbn "$1" "$2" >passwords
  PASSWORDS="auth: {htpasswd: {realm: test, path: $PWD/passwords}}"
}

# Makes an authority and CERTIFICATE, the registry's configuration with a certificate for any address of the host.
registry_certificate() {
  local names
  names=$(on_host ip -4 -o address show | awk '{ sub("/.*", "", $4); printf ",IP:%s", $4 }')
  openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.crt 2>/dev/null
  openssl req -newkey rsa:2048 -nodes -subj /CN=registry -keyout registry.key -out registry.csr 2>/dev/null
  printf 'subjectAltName=DNS:localhost%s\n' "$names" >names
  openssl x509 -req -in registry.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out registry.crt 2>/dev/null
  CERTIFICATE="  tls: {certificate: $PWD/registry.crt, key: $PWD/registry.key}"
  SCHEME=https
}

# Makes the registry of registry_certificate let in only who has a certificate of its authority, which is made too.
registry_clients() {
  openssl req -newkey rsa:2048 -nodes -subj /CN=client -keyout client.key -out client.csr 2>/dev/null
  openssl x509 -req -in client.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out client.cert 2>/dev/null
  CERTIFICATE="  tls: {certificate: $PWD/registry.crt, key: $PWD/registry.key, clientcas: [$PWD/ca.crt]}"
  CLIENT_CERTIFICATE=yes
}

# Lets engines believe the authority, until registry_distrust.
registry_trust() { mkdir -p "/etc/docker/certs.d/$R" && cp ca.crt "/etc/docker/certs.d/$R/"; }
registry_distrust() { rm -r "/etc/docker/certs.d/$R"; }

# Prints an address of the engine's host that is not loopback's.
host_address() { on_host ip -4 -o address show scope global | awk '{ sub("/.*", "", $4); print $4; exit }'; }

# Starts a proxy on the engine's host, P being its address: proxy [--stall BYTES]. It writes proxy.log.
proxy() {
  local port=$((31000 + RANDOM % 900))
  P=127.0.0.1:$port
  nsenter --net="$HOST_NETNS" -- "$PYTHON" "$CASES/python/proxy.py" "$port" "$@" >>proxy.log 2>>proxy.err &
  PROXY=$!
  eventually on_host curl --silent --proxy "http://$P" --output /dev/null "http://$R/v2/"
  : >proxy.log
}

# Starts a Dory of the case's own beside the engine, on OWN_HOST: own_engine [NAME=VALUE...].
own_engine() {
  OWN_HOST=unix://$PWD/own.sock
  env -u HTTP_PROXY -u http_proxy -u HTTPS_PROXY -u https_proxy -u NO_PROXY -u no_proxy "$@" \
    nsenter --net="$HOST_NETNS" -- "$DORY" serve -H "$OWN_HOST" --data-root "$PWD/own" --exec-root "$PWD/own-exec" \
    --bridge none --cgroup-parent "$CGROUP_PARENT" ${OWN_CONFIG:+--config $OWN_CONFIG} 2>>own.log &
  OWN=$!
  eventually docker -H "$OWN_HOST" version >/dev/null
}

# Ends it: own_engine_end [SIGNAL].
own_engine_end() { kill "-${1:-TERM}" $OWN; wait $OWN 2>/dev/null; OWN=; }

# Enters a copy of the project on Debian's image, and lets apt in containers out by a proxy at PROXY_URL.
debian_project() {
  local port=$((32000 + RANDOM % 900))
  export PROXY_URL=http://192.0.2.1:$port
  docker load --quiet --input "$IMAGES/large/debian.tar" >/dev/null
  cp -r "$CASES/project" project && cd project || return
  "$PYTHON" "$CASES/python/debian_mirror.py" "$OUTSIDE_NETNS" 192.0.2.1 "$port" >../mirror.log 2>&1 &
  eventually outside curl --silent --fail --proxy "$PROXY_URL" --output /dev/null http://deb.debian.org/debian/dists/bookworm/InRelease
}

# What a case leaves over; its objects begin with the name in C.
cleanup() {
  local left
  [ -z "${REGISTRY:-}" ] || registry_end
  [ -z "${PROXY:-}" ] || kill $PROXY
  [ -z "${WEB:-}" ] || kill $WEB
  [ -z "${OWN:-}" ] || own_engine_end KILL
  left=$(docker ps --all --quiet --filter "name=$C")
  [ -z "$left" ] || docker rm --force --volumes $left
  left=$(docker volume ls --quiet --filter "name=$C")
  [ -z "$left" ] || docker volume rm --force $left
  left=$(docker network ls --quiet --filter "name=$C")
  [ -z "$left" ] || docker network rm $left
}
