# Completes command lines of @NAME@ in bash. To have it in this shell: . <(@NAME@ completion bash)
_@NAME@() {
    local line=${COMP_LINE:0:COMP_POINT} words answer directive="" prefix="" IFS=$' \t\n'
    # Not COMP_WORDS: bash takes words apart at "=" and ":".
    read -r -d '' -a words <<<"$line" || :
    [[ $line != *[[:space:]] ]] || words+=("")
    # Where bash does not part words at "=", what is offered stands for the whole word.
    [[ $2 != -*=* ]] || prefix=${2%%=*}=
    COMPREPLY=()
    while IFS= read -r answer; do
        case $answer in
            :*) directive=${answer#:} ;;
            *) COMPREPLY+=("$prefix${answer%%$'\t'*}") ;;
        esac
    done < <("${1/#\~/$HOME}" @ASK@ "${words[@]:1}" 2>/dev/null)
    [[ $directive != 0 ]] || compopt -o default 2>/dev/null
}
complete -F _@NAME@ @NAME@
