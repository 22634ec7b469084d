# Runs one handler in bash: a file that defines `handle`, which reads and prints lines.
#
# Speaks lines, see docs/languages.rst: the functions below write the files in $MR_INVOCATION_FOLDER for it.
# A command that fails fails the handler (set -eo pipefail), and where it stood is printed.

set -Eeuo pipefail

# map_to STEP: what is printed becomes children of a step. Only in a mapper, before it prints its first line.
map_to() { printf '%s' "$1" >"$MR_INVOCATION_FOLDER/map_to"; }

# json_values: what stands behind the tab of printed lines is JSON, not text. Before the first line is printed.
json_values() { printf json >"$MR_INVOCATION_FOLDER/values"; }

# session_set KEY VALUE, session_get KEY, session_has KEY; session_list prints key, tab, value.
session_set() { printf '%s' "$2" >"$MR_INVOCATION_FOLDER/session/$(mr_quoted "$1")"; }
session_get() { cat -- "$MR_INVOCATION_FOLDER/session/$(mr_quoted "$1")"; }
session_has() { [ -e "$MR_INVOCATION_FOLDER/session/$(mr_quoted "$1")" ]; }
session_list() {
    local file name
    for file in "$MR_INVOCATION_FOLDER"/session/*; do
        [ -e "$file" ] || continue
        name="${file##*/}"
        printf '%b\t%s\n' "${name//%/\\x}" "$(cat -- "$file")"
    done
}

# log LEVEL MESSAGE: one line in the output of the invocation, as print and stderr are.
log() { printf '%s [%s] %s\n' "${1^^}" "$MR_HANDLER" "$2" >&2; }

# A session key as a file name: %2F for a slash, and so on.
mr_quoted() {
    local LC_ALL=C text="$1" quoted="" at character
    for ((at = 0; at < ${#text}; at++)); do
        character="${text:at:1}"
        case "$character" in
        [A-Za-z0-9_-]) quoted+="$character" ;;
        *) printf -v character '%%%02X' "'$character" && quoted+="%${character: -2}" ;;
        esac
    done
    printf '%s' "$quoted"
}

mr_failed() {
    local status="$1" command="$2" level=0 place line name file
    trap - ERR
    printf '    status %s: %s\n' "$status" "$command" >&2
    while place="$(caller "$level")"; do
        read -r line name file <<<"$place"
        if [ "$file" != "$MR_RUNNER" ]; then printf '    at %s (%s:%s)\n' "$name" "$file" "$line" >&2; fi
        level=$((level + 1))
    done
    exit "$status"
}
MR_RUNNER="${BASH_SOURCE[0]}"
trap 'mr_failed "$?" "$BASH_COMMAND"' ERR

# shellcheck source=/dev/null
. "$1"
if ! declare -F handle >/dev/null; then
    printf '%s defines no function handle\n' "$1" >&2
    exit 1
fi
handle
