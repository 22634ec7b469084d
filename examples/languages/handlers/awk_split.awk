# Print a line "word TAB 1" for every word, of ASCII letters.
#
# /// mr
# handler_type = "mapper"
# required_capability = "none"
# ///

BEGIN { printf "json" > (ENVIRON["MR_INVOCATION_FOLDER"] "/values") ; close(ENVIRON["MR_INVOCATION_FOLDER"] "/values") }

{
    count = split(tolower($2), words, /[^a-z]+/)
    for (at = 1; at <= count; at++) if (words[at] != "") print words[at] "\t" 1
}
