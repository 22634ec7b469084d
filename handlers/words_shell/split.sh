# Print a line "word TAB 1" for every word, of ASCII letters. What comes in: lines "name TAB a line of its text".
#
# /// mr
# handler_type = "mapper"
# required_capability = "none"
# ///

handle() {
    json_values # 1 is a number, for reducers in other languages
    cut -f 2- | tr '[:upper:]' '[:lower:]' | tr -cs '[:alpha:]' '[\n*]' | sed -e '/^$/d' -e 's/$/\t1/'
}
