# Yield (word, 1) for every word of every text.
#
# /// mr
# handler_type = "mapper"
# required_capability = "none"
# ///

use strict;
use warnings;

sub handle {
    my ($arguments, $ctx) = @_;
    while (my ($name, $text) = $arguments->next) {
        $ctx->yield(lc $1, 1) while $text =~ /(\p{Letter}+)/g;
    }
}
