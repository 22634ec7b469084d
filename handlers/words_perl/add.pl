# Add up the counts of each word.
#
# /// mr
# handler_type = "reducer"
# required_capability = "none"
# ///

use strict;
use warnings;
use List::Util 'sum0';

sub handle {
    my ($results, $ctx) = @_;
    while (my ($word, $counts) = $results->next) { $ctx->yield($word, sum0(@$counts)) }
}
