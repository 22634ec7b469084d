# Add up the counts of each word. Comes in: lines "word TAB count", those of a word together.
#
# /// mr
# handler_type = "reducer"
# required_capability = "none"
# ///

handle() {
    json_values
    awk -F '\t' '
        NR > 1 && $1 != word { print word "\t" sum; sum = 0 }
        { word = $1; sum += $2 }
        END { if (NR) print word "\t" sum }
    '
}
