# Words of all lengths in nested hashes and arrays, sorted, joined, split and rewritten. The seed is the script's own.
use strict;
use warnings;

my $state = 12345;
sub number { my ($below) = @_; $state = ($state * 1103515245 + 12345) & 0x7fffffff; return ($state >> 8) % $below; }
sub word { my $text = ''; $text .= chr(97 + number(26)) for 1 .. 3 + number($_[0]); return $text; }

my (%count, %letters, @lines);
for my $line (1 .. 12000) {
    my @words = map { word($_ % 7 == 0 ? 60 : 5) } 1 .. 12;
    $count{$_}++ for @words;
    push @{ $letters{ substr($_, 0, 2) } }, $_ for @words;
    push @lines, join ' ', @words;
}
printf "%d different words on %d lines\n", scalar keys %count, scalar @lines;

my @common = (sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count)[0 .. 19];
print "$_ $count{$_}\n" for @common;

my $total = 0;
for my $pair (sort keys %letters) {
    my $joined = join ',', sort @{ $letters{$pair} };
    (my $other = $joined) =~ s/([aeiou])([^aeiou,])/$2$1/g;
    $total = ($total * 31 + unpack('%32C*', $other) + length $other) % 1_000_000_007;
    delete $letters{$pair} if length($joined) % 2;
}
print "checksum $total, ", scalar keys %letters, " pairs left\n";

my %tree;
for my $line (@lines) {
    my $node = \%tree;
    $node = $node->{ substr $_, 0, 1 } //= {} for split / /, $line;
    $node->{text} = reverse $line;
}
sub depth { my ($node) = @_; my $sum = 1; ref $node->{$_} and $sum += depth($node->{$_}) for keys %$node; return $sum; }
print 'nodes ', depth(\%tree), "\n";
my $text = join "\n", map { uc } @lines;
my $found = () = $text =~ /\b[A-M]\w+ [N-Z]\w+\b/g;
print "found $found in ", length $text, " bytes\n";
