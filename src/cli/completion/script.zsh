#compdef @NAME@
# Completes command lines of @NAME@ in zsh. To have it in this shell, after compinit: source <(@NAME@ completion zsh)
_@NAME@() {
    local answer directive
    local -a answers offers
    answers=("${(@f)$("${(Q)words[1]}" @ASK@ "${(@Q)words[2,CURRENT-1]}" "$PREFIX" 2>/dev/null)}")
    for answer in $answers; do
        case $answer in
            :*) directive=${answer#:} ;;
            *$'\t'*) offers+=("${${answer%%$'\t'*}//:/\\:}:${answer#*$'\t'}") ;;
            *) offers+=("${answer//:/\\:}") ;;
        esac
    done
    [[ $PREFIX != -*=* ]] || compset -P '*='
    (( ! $#offers )) || _describe 'completions' offers
    [[ $directive != 0 ]] || _files
}
# Run as the function that compinit has loaded, or sourced.
if [[ $funcstack[1] == _@NAME@ ]]; then
    _@NAME@ "$@"
else
    compdef _@NAME@ @NAME@
fi
