if [ "$1" -eq 0 ] && [ -x /usr/lib/systemd/systemd-update-helper ]; then
    /usr/lib/systemd/systemd-update-helper remove-system-units quorate.service quorate-proxy.service quorate-discovery.service quorate-backup.timer || :
elif [ "$1" -eq 0 ]; then
    systemctl --no-reload disable --now quorate.service quorate-proxy.service quorate-discovery.service quorate-backup.timer >/dev/null 2>&1 || :
fi
