#!/usr/bin/env bash
# A throwaway Ceph on this machine (a monitor, one OSD in memory, the S3 gateway), with one user and one bucket.
#   tests/ceph.sh start DIR [PORT]    prints the variables by which the tests find it
#   tests/ceph.sh stop DIR
# Packages: ceph-mon ceph-osd radosgw ceph-common curl
set -euo pipefail
what=$1 dir=$2 port=${3:-7480}
export CEPH_CONF=$dir/ceph.conf

if [ "$what" = stop ]; then
  for name in gateway osd mon; do
    if [ -f "$dir/$name.pid" ]; then kill "$(cat "$dir/$name.pid")" 2>/dev/null || true; fi
  done
  exit 0
fi

start() { # name, command: in the background, with its id in a file
  "${@:2}" -f >"$dir/log/$1.out" 2>&1 &
  echo $! >"$dir/$1.pid"
}
wait_for() { # command, for at most a minute
  for _ in $(seq 600); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done
  echo "ceph did not start: see $dir/log" >&2
  exit 1
}

mkdir -p "$dir"/{mon,osd,gateway,run,log}
dir=$(cd "$dir" && pwd)
export CEPH_CONF=$dir/ceph.conf
cat >"$CEPH_CONF" <<CONF
[global]
fsid = $(cat /proc/sys/kernel/random/uuid)
mon host = v2:127.0.0.1:$((port + 1))
mon initial members = a
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind msgr1 = false
auth cluster required = none
auth service required = none
auth client required = none
run dir = $dir/run
crash dir = $dir/run
admin socket = $dir/run/\$name.\$pid.asok
log file = $dir/log/\$name.log
pid file =
# One copy of everything, on the one OSD there is.
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon max pg per osd = 2000
osd crush chooseleaf type = 0
osd crush update on start = false
osd objectstore = memstore
memstore device bytes = 4294967296
[mon]
mon data = $dir/mon
[osd]
osd data = $dir/osd
osd journal = $dir/osd/journal
[client.rgw]
rgw data = $dir/gateway
rgw frontends = beast endpoint=127.0.0.1:$port
rgw run sync thread = false
rgw enable usage log = false
rgw dynamic resharding = false
# Without keys the gateway's usual mode, which encrypts, waits for ever.
ms mon client mode = crc
CONF

fsid=$(sed -n 's/^fsid = //p' "$CEPH_CONF")
monmaptool --create --clobber --fsid "$fsid" --addv a "[v2:127.0.0.1:$((port + 1))]" "$dir/monmap" >/dev/null
ceph-mon --mkfs -i a --monmap "$dir/monmap"
start mon ceph-mon -i a
wait_for timeout 5 ceph mon stat

uuid=$(cat /proc/sys/kernel/random/uuid)
ceph osd new "$uuid" >/dev/null
ceph osd crush add osd.0 1.0 root=default host=here >/dev/null 2>&1
ceph-osd -i 0 --mkfs --osd-uuid "$uuid" >"$dir/log/mkfs.out" 2>&1
start osd ceph-osd -i 0

key=testaccess secret=testsecret1234567890 bucket=agent-trace-tests
radosgw-admin user create --uid=tests --display-name=tests --access-key=$key --secret-key=$secret \
  >/dev/null 2>"$dir/log/user.out"
start gateway radosgw -n client.rgw
wait_for curl -s -o /dev/null "http://127.0.0.1:$port/"
# The hash of nothing, which some versions of curl do not send by themselves.
nothing="x-amz-content-sha256: $(sha256sum </dev/null | cut -d' ' -f1)"
curl -sf --aws-sigv4 aws:amz:us-east-1:s3 --user $key:$secret -H "$nothing" -X PUT "http://127.0.0.1:$port/$bucket"

echo "export AGENT_TRACE_S3_ENDPOINT=http://127.0.0.1:$port AGENT_TRACE_S3_BUCKET=$bucket"
echo "export AGENT_TRACE_S3_ACCESS_KEY=$key AGENT_TRACE_S3_SECRET_KEY=$secret"
