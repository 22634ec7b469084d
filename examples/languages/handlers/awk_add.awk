# Add up the counts of each word; those of a word come together.
#
# /// mr
# handler_type = "reducer"
# required_capability = "none"
# ///

BEGIN { printf "json" > (ENVIRON["MR_INVOCATION_FOLDER"] "/values") ; close(ENVIRON["MR_INVOCATION_FOLDER"] "/values") }

NR > 1 && $1 != word { print word "\t" sum; sum = 0 }
{ word = $1; sum += $2 }
END { if (NR) print word "\t" sum }
