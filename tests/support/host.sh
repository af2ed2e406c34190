#!/bin/sh
# Makes a host of the network and mount namespaces it is started in: the machine's files, and a /data/etcd of its own.
# Usage: unshare --net --mount --propagation private tests/support/host.sh ROOT STORE [DISK_MEGABYTES]
# ROOT is an empty directory that becomes /, STORE is the directory behind /data/etcd. With a size, /data/etcd is a file
# system on a file on a second file system at /lower: while that one is frozen, writes go into memory and syncs wait.
# Prints "ready" and sleeps: the namespaces, and all they hold, last as long as this process.
set -eu
root=$1
store=$2
disk=${3:-}

ip link set lo up
mount -t tmpfs -o mode=755 host "$root"
for entry in /*; do
    name=${entry#/}
    if [ -L "$entry" ]; then
        cp -a "$entry" "$root/$name"
    elif [ -d "$entry" ] && [ "$name" != data ]; then
        mkdir "$root/$name"
        mount --rbind "$entry" "$root/$name"
    fi
done
mkdir -p "$root/data/etcd" "$root/machine"
if [ -n "$disk" ]; then
    truncate -s "$((disk + 64))M" "$store/lower.img"
    mkfs.ext4 -q -F -E lazy_itable_init=1,lazy_journal_init=1 "$store/lower.img"
    mkdir "$root/lower"
    mount -o loop,noatime "$store/lower.img" "$root/lower"
    truncate -s "${disk}M" "$root/lower/upper.img"
    # Without a journal, so that no write ever waits for one: only syncs do.
    mkfs.ext4 -q -F -O ^has_journal -E lazy_itable_init=1 "$root/lower/upper.img"
    mount -o loop,noatime "$root/lower/upper.img" "$root/data/etcd"
    rmdir "$root/data/etcd/lost+found"
    chmod 700 "$root/data/etcd"
else
    mount --bind "$store" "$root/data/etcd"
fi
cd "$root"
pivot_root . machine
umount -l /machine
rmdir /machine
echo ready
exec sleep infinity
