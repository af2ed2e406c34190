# etcd's names are links, which the tool that makes this package cannot carry.
ln -sfn quorate /usr/bin/etcd
ln -sfn quoratectl /usr/bin/etcdctl
ln -sfn quorateutl /usr/bin/etcdutl
ln -sfn quorate.service /usr/lib/systemd/system/etcd.service
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload >/dev/null 2>&1 || :
    systemctl try-restart quorate.service >/dev/null 2>&1 || :
fi
