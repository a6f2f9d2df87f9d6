# A world of two networks: this one, in which the arguments are run, and one outside of it, with a gateway and the metadata
# services of clouds. To be run as root of new user, mount and network namespaces that map the subordinate range $FIRST as
# it is. $PROBE is the probe, $SERVERS what listens here; with $WITHOUT_ROUTE nothing is outside in the end.
set -eu
mount -t tmpfs tmpfs /run
echo "root:$FIRST:65536" >/run/ids
mount --bind /run/ids /etc/subuid
mount --bind /run/ids /etc/subgid
printf 'nameserver 127.0.0.53\nsearch world.example\n' >/run/resolv.conf
mount --bind /run/resolv.conf /etc/resolv.conf

ip link set lo up
mkfifo /run/left /run/ready
unshare --net sh -c 'echo >/run/left; exec sleep 600' &
outside=$!
read -r _ </run/left
ip link add here type veth peer name there netns "$outside"
add() { for address in $2; do $1 ip address add "$address" dev "$3" $4; done; }
out="nsenter --net=/proc/$outside/ns/net"
add "" "198.51.100.2/24 203.0.113.7/32" here ""
add "" "2001:db8:1::2/64" here nodad
add "$out" "198.51.100.1/24 169.254.169.254/32 100.100.100.200/32" there ""
add "$out" "2001:db8:1::1/64 fd00:ec2::254/128" there nodad
$out ip link set lo up
ip link set here up
$out ip link set there up
ip route add default via 198.51.100.1
# As clouds announce it.
ip route add 169.254.169.254/32 via 198.51.100.1
ip -6 route add default via 2001:db8:1::1

$out "$PROBE" serve outside tcp:198.51.100.1:80 tcp:198.51.100.1:81 tcp:169.254.169.254:80 tcp:100.100.100.200:80 tcp:[2001:db8:1::1]:80 \
  tcp:[fd00:ec2::254]:80 >/run/ready &
there=$!
read -r _ </run/ready
"$PROBE" serve inside $SERVERS >/run/ready &
here=$!
read -r _ </run/ready
if [ -n "${WITHOUT_ROUTE:-}" ]; then ip link delete here; fi
code=0
"$@" || code=$?
kill "$outside" "$there" "$here"
exit "$code"
