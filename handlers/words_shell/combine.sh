# Add up the words of one mapper, so that less has to travel. What comes in is sorted by word.
#
# /// mr
# handler_type = "combiner"
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
