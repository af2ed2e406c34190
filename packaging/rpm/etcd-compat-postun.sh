if [ "$1" -eq 0 ]; then
    rm -f /usr/bin/etcd /usr/bin/etcdctl /usr/bin/etcdutl /usr/lib/systemd/system/etcd.service
    if [ -d /run/systemd/system ]; then
        systemctl daemon-reload >/dev/null 2>&1 || :
        systemctl try-restart quorate.service >/dev/null 2>&1 || :
    fi
fi
