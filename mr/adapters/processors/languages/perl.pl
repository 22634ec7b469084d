# Runs one handler in Perl: a file that defines `sub handle { my ($input, $ctx) = @_; … $ctx->yield($key, $value) }`.
#
# Speaks the protocol of docs/languages.rst. What the handler prints goes to stderr: stdout belongs to the protocol.

# Out here, so that the handler sees no names of this file, and may be as strict as it likes.
sub Mr::load { no strict; no warnings; package main; eval "use utf8;\n#line 1 \"$_[1]\"\n$_[0]\n;1" }

package Mr;
use strict;
use warnings;

my $Json;
BEGIN {
    for my $module (qw(Cpanel::JSON::XS JSON::XS JSON::PP)) {
        (my $file = "$module.pm") =~ s{::}{/}g;
        next unless eval { require $file; 1 };
        $Json = $module->new->utf8->canonical->allow_nonref;
        last;
    }
    $Json or die "perl has no JSON::PP here; apt-get install perl\n";
}

open my $In, '<&', \*STDIN or die "stdin: $!";
open my $Out, '>&', \*STDOUT or die "stdout: $!";
binmode $_ for $In, $Out;
open STDIN, '<', '/dev/null' or die "/dev/null: $!";
open STDOUT, '>&', \*STDERR or die "stderr: $!";
binmode $_, ':utf8' for \*STDOUT, \*STDERR;
STDERR->autoflush(1);
STDOUT->autoflush(1);

sub say_line { print {$Out} $Json->encode([@_]), "\n" or die "stdout: $!" }

sub hear {
    my $line = readline $In;
    exit 0 unless defined $line;
    return $Json->decode($line);
}

sub stack {
    my ($message) = @_;
    my ($text, $level) = ("$message", 1);
    while (my @frame = caller $level++) {
        next if $frame[0] eq 'Mr' || $frame[0] eq 'Mr::Context';
        $text .= "    $frame[3] called at $frame[1] line $frame[2]\n";
    }
    return $text;
}

package Mr::Input;    # next: ($key, $value), or ($key, [values]); an empty list at the end

sub new { bless { ended => 0 }, shift }

sub next {
    my ($self) = @_;
    while (!$self->{ended}) {
        my ($verb, @fields) = @{ Mr::hear() };
        if ($verb eq 'more') { push @{ $self->{row}[1] }, @{ $fields[0] }; next }
        my $row = $self->{row};
        $self->{ended} = $verb eq 'end';
        $self->{row} = $self->{ended} ? undef : \@fields;
        return @$row if $row;
    }
    return;
}

sub all {
    my ($self) = @_;
    my @rows;
    while (my @row = $self->next) { push @rows, [@row] }
    return @rows;
}

package Mr::Context;

sub yield { my ($self, $key, $value) = @_; Mr::say_line('out', $key, $value); return }
sub map_to { my ($self, $step) = @_; Mr::say_line('map', "$step"); return }
sub session_has { my ($self, $key) = @_; return exists $self->{session}{$key} }
sub session_list { my ($self) = @_; return map { [$_, $self->{session}{$_}] } sort keys %{ $self->{session} } }

sub session_get {
    my ($self, $key) = @_;
    die "the session has no '$key'" unless exists $self->{session}{$key};
    return $self->{session}{$key};
}

sub session_set {
    my ($self, $key, $value) = @_;
    Mr::say_line('set', "$key", $value);
    $self->{session}{$key} = $value;
    return;
}

sub log { my ($self, $level, $message) = @_; print STDERR uc $level, " [$self->{handler}] $message\n"; return }

package main;

{
    my $file = $ARGV[0];
    my ($trace, $kind) = ('', '');
    while (1) {
        my (undef, $run) = @{ Mr::hear() };
        my $input = Mr::Input->new;
        my $ctx = bless { %$run, session => { map { @$_ } @{ $run->{session} } } }, 'Mr::Context';
        my $ok = eval {
            local $SIG{__DIE__} = sub { $kind = ref $_[0] || 'die'; $trace = Mr::stack($_[0]) };
            if (!defined &main::handle) {
                open my $source, '<:encoding(UTF-8)', $file or die "$file: $!\n";
                local $/ = undef;
                Mr::load(scalar readline($source), $file) or die $@;
                defined &main::handle or die "the handler defines no sub handle\n";
            }
            main::handle($input, $ctx);
            1;
        };
        if (!$ok) {
            my $error = "$@";
            my ($first) = $error =~ /\A([^\n]*)/;
            my $unfit = $first =~ /encountered (?:object|CODE|GLOB)|cannot encode|hash- or arrayref expected/;
            Mr::say_line('failed', $unfit ? 'NotSerialisable' : $kind, $first, $trace || $error);
        } else {
            1 while $input->next;
            Mr::say_line('done');
        }
        $Out->flush;
    }
}
