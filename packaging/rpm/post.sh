# The user, the directory, and the distribution's presets, which start nothing by themselves.
systemd-sysusers quorate.conf || :
systemd-tmpfiles --create quorate.conf || :
if [ "$1" -eq 1 ] && [ -x /usr/lib/systemd/systemd-update-helper ]; then
    /usr/lib/systemd/systemd-update-helper install-system-units quorate.service || :
elif [ "$1" -eq 1 ]; then
    systemctl --no-reload preset quorate.service >/dev/null 2>&1 || :
fi
