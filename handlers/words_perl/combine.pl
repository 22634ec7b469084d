# Add up the words of one mapper, so that less has to travel.
#
# /// mr
# handler_type = "combiner"
# required_capability = "none"
# ///

use strict;
use warnings;

sub handle {
    my ($results, $ctx) = @_;
    my %counts;
    while (my ($word, $count) = $results->next) { $counts{$word} += $count }
    $ctx->yield($_, [$counts{$_}]) for sort keys %counts;
}
