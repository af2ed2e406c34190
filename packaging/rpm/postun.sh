# After an upgrade a running member is restarted, and hands leadership over before it stops. Data are never removed.
if [ "$1" -ge 1 ] && [ -x /usr/lib/systemd/systemd-update-helper ]; then
    /usr/lib/systemd/systemd-update-helper mark-restart-system-units quorate.service || :
elif [ "$1" -ge 1 ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload >/dev/null 2>&1 || :
    systemctl try-restart quorate.service >/dev/null 2>&1 || :
fi
