# Completes command lines of @NAME@ in fish. To have it in this shell: @NAME@ completion fish | source
function __@NAME@_offers
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l program $words[1]
    set -e words[1]
    set -l prefix (string match -r -- '^-[^=]*=' "$current")
    set -l directive ''
    for answer in ($program @ASK@ $words "$current" 2>/dev/null)
        if string match -q -- ':*' $answer
            set directive $answer
        else
            printf '%s%s\n' "$prefix" $answer
        end
    end
    if test "$directive" = ':0'
        set -l path (string replace -r -- '^-[^=]*=' '' "$current")
        for file in (__fish_complete_path "$path")
            printf '%s%s\n' "$prefix" $file
        end
    end
end
complete -c @NAME@ -f -a '(__@NAME@_offers)'
