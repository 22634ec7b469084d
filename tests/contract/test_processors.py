"""The promises of handlers, kept by Python and by every language that mr brings."""

from __future__ import annotations

from pathlib import Path

import pytest

from mr.adapters.language_file import languages
from mr.adapters.processors.command import CommandProcessor
from mr.adapters.processors.python import PythonProcessor
from tests.contract.processor_contract import Dialect, ProcessorContract
from tests.servers import program

LANGUAGES = languages()
pytestmark = pytest.mark.kills


class Shipped(ProcessorContract):
    languages = LANGUAGES


def block(sign: str) -> str:
    return f'{sign} /// mr\n{sign} handler_type = "{{kind}}"\n{sign} required_capability = "none"\n{sign} ///\n'


class TestPython(Shipped):
    @pytest.fixture
    def dialect(self) -> Dialect:
        mapper = "def handle(arguments, ctx):\n"
        reducer = "def handle(results, ctx):\n"
        return Dialect(
            processor=PythonProcessor(),
            extension="py",
            header=block("#"),
            stack=('File "handler(the_mapper)", line 6, in inner',),
            broken_line=5,
            code={
                "same": mapper + "    yield from arguments\n",
                "many": mapper + "    for number in range(5000):\n        yield number, 'v'\n",
                "maps": mapper + "    ctx.map_to('next')\n    yield from arguments\n",
                "keeps": "def handle({parameter}, ctx):\n    ctx.session['a/é'] = 'one two'\n    yield 'k', 1\n",
                "prints": mapper + "    print('printed', arguments[0][1], 'é')\n    yield from arguments\n",
                "raises": "def inner():\n    raise ValueError('no such luck')\n"
                + mapper
                + "    inner()\n    yield 1, 2\n",
                "broken": "def handle(arguments, ctx:\n    yield 1, 2\n",
                "exits": mapper + "    import os; os._exit(3)\n    yield 1, 2\n",
                "kills_itself": mapper + "    import os; os.kill(os.getpid(), 15)\n    yield 1, 2\n",
                "hangs": mapper + "    print('hanging')\n    while True: pass\n    yield 1, 2\n",
                "total": reducer + "    for key, values in results:\n        yield key, sum(map(float, values))\n",
                "combines": reducer + "    groups = {}\n    for key, value in results:\n"
                "        groups.setdefault(key, []).append(float(value))\n"
                "    for key, values in groups.items():\n        yield key, [sum(values)]\n",
                "recalls": reducer + "    for key, values in results:\n        yield key, ctx.session['a/é']\n",
            },
        )


class TestJavaScript(Shipped):
    @pytest.fixture
    def dialect(self) -> Dialect:
        program("node")
        handle = "export function* handle(args, ctx) {\n"
        each = handle + "  for (const [key, value] of args) "
        return Dialect(
            processor=CommandProcessor(LANGUAGES["javascript"]),
            extension="js",
            header=block("//"),
            stack=("at inner (handler(the_mapper):6:", "at handle (handler(the_mapper):9:"),
            broken_line=5,
            code={
                "same": each + "yield [key, value];\n}\n",
                "many": "export async function* handle() {\n  for (let n = 0; n < 5000; n++) yield [n, 'v'];\n}\n",
                "maps": handle + "  ctx.mapTo('next');\n  yield* args;\n}\n",
                "keeps": handle
                + "  ctx.session.set('a/é', 'one two');\n  for (const pair of args) yield ['k', 1];\n}\n",
                "prints": each + "{ console.log('printed', value, 'é'); yield [key, value]; }\n}\n",
                "raises": "function inner() {\n  throw new RangeError('no such luck');\n}\n"
                + handle
                + "  inner();\n}\n",
                "broken": "export function* handle(args, ctx {\n}\n",
                "exits": handle + "  process.exit(3);\n}\n",
                "kills_itself": handle + "  process.kill(process.pid, 'SIGTERM');\n  for (;;);\n}\n",
                "hangs": handle + "  console.log('hanging');\n  for (;;);\n}\n",
                "total": each + "yield [key, values(value)];\n}\n"
                "const values = (all) => all.reduce((sum, one) => sum + Number(one), 0);\n",
                "combines": handle + "  const sums = new Map();\n"
                "  for (const [key, value] of args) sums.set(key, (sums.get(key) ?? 0) + Number(value));\n"
                "  for (const [key, sum] of sums) yield [key, [sum]];\n}\n",
                "recalls": each + "yield [key, ctx.session.get('a/é')];\n}\n",
            },
        )


class TestPerl(Shipped):
    @pytest.fixture
    def dialect(self) -> Dialect:
        program("perl", "-MJSON::PP", "-e", "1")
        handle = "sub handle {\n  my ($input, $ctx) = @_;\n"
        each = handle + "  while (my ($key, $value) = $input->next) { "
        return Dialect(
            processor=CommandProcessor(LANGUAGES["perl"]),
            extension="pl",
            header=block("#"),
            stack=("main::inner called at handler(the_mapper) line 10", "at handler(the_mapper) line 6"),
            code={
                "same": each + "$ctx->yield($key, $value) }\n}\n",
                "many": handle + "  $ctx->yield($_, 'v') for 1 .. 5000;\n}\n",
                "maps": handle + "  $ctx->map_to('next');\n  $ctx->yield(@$_) for $input->all;\n}\n",
                "keeps": handle + "  $ctx->session_set('a/é', 'one two');\n  $ctx->yield('k', 1);\n}\n",
                "prints": each + 'print "printed $value é\\n"; $ctx->yield($key, $value) }\n}\n',
                "raises": "sub inner {\n  die 'no such luck';\n}\n" + handle + "  inner();\n}\n",
                "broken": "sub handle {\n  my ($input, $ctx = @_;\n}\n",
                "exits": handle + "  exit 3;\n}\n",
                "kills_itself": handle + "  kill 'TERM', $$; sleep 60;\n}\n",
                "hangs": handle + '  print "hanging\\n"; 1 while 1;\n}\n',
                "total": each + "my $sum = 0; $sum += $_ for @$value; $ctx->yield($key, $sum) }\n}\n",
                "combines": handle
                + "  my %sums;\n  while (my ($key, $value) = $input->next) { $sums{$key} += $value }\n"
                "  $ctx->yield($_, [$sums{$_}]) for sort keys %sums;\n}\n",
                "recalls": each + "$ctx->yield($key, $ctx->session_get('a/é')) }\n}\n",
            },
        )


SUM = "awk -F'\\t' '{ sums[$1] += $2 } END { for (key in sums) print key \"\\t\" sums[key] }'"


class TestShell(Shipped):
    @pytest.fixture
    def dialect(self) -> Dialect:
        program("bash")
        return Dialect(
            processor=CommandProcessor(LANGUAGES["shell"]),
            extension="sh",
            header=block("#"),
            has_types=False,
            stack=("status 1: false", "at inner (handler(the_mapper):7)", "at handle (handler(the_mapper):9)"),
            broken_line=6,
            code={
                "same": "handle() { cat; }\n",
                "many": "handle() { cat >/dev/null; seq 5000 | sed 's/$/\\tv/'; }\n",
                "maps": "handle() {\n  map_to next\n  while IFS=$'\\t' read -r key value; do\n"
                '    printf \'%s\\t%s\\n\' "$key" "$value"\n  done\n}\n',
                "keeps": "handle() { session_set 'a/é' 'one two'; cat; }\n",
                "prints": "handle() {\n  IFS=$'\\t' read -r key value\n"
                '  echo "printed $value é" >/dev/stderr\n  echo "$key"\n}\n',
                "raises": "inner() {\n  echo 'no such luck' >&2\n  false\n}\nhandle() { inner; }\n",
                "broken": "handle() {\n  if true; fi\n}\n",
                "exits": "handle() { exit 3; }\n",
                "kills_itself": "handle() { kill -TERM $$; sleep 60; }\n",
                "hangs": "handle() { echo hanging >&2; sleep 1000; }\n",
                "total": "handle() { " + SUM + " | sort; }\n",
                "combines": "handle() { " + SUM + "; }\n",
                "recalls": 'handle() {\n  local value key\n  value="$(session_get a/é)"\n'
                "  IFS=$'\\t' read -r key _\n  printf '%s\\t%s\\n' \"$key\" \"$value\"\n}\n",
            },
        )


class TestStreaming(Shipped):
    @pytest.fixture
    def dialect(self, tmp_path: Path) -> Dialect:
        python = program("python3")
        return Dialect(
            processor=CommandProcessor(LANGUAGES["streaming"]),
            extension="py",
            header=f'#!{python}\n# /// mr\n# source_type = "streaming"\n# handler_type = "{{kind}}"\n'
            '# required_capability = "none"\n# ///\n',
            has_types=False,
            has_calls=False,
            has_keys=False,
            stack=('File "handler(the_mapper)", line 8, in inner',),
            code={
                "same": "import sys\nfor line in sys.stdin:\n    sys.stdout.write(line)\n",
                "many": "for number in range(5000):\n    print(number, 'v', sep='\\t')\n",
                "prints": "import sys\nprint('printed', sys.stdin.read().strip(), 'é', file=sys.stderr)\nprint('k')\n",
                "raises": "def inner():\n    raise ValueError('no such luck')\ninner()\n",
                "broken": "print(\n",
                "exits": "raise SystemExit(3)\n",
                "kills_itself": "import os, time\nos.kill(os.getpid(), 15)\ntime.sleep(60)\n",
                "hangs": "import sys, time\nprint('hanging', file=sys.stderr)\ntime.sleep(1000)\n",
                "total": "import sys\nfrom itertools import groupby\n"
                "pairs = (line.rstrip('\\n').split('\\t', 1) for line in sys.stdin)\n"
                "for key, group in groupby(pairs, key=lambda pair: pair[0]):\n"
                "    print(key, sum(float(value) for _, value in group), sep='\\t')\n",
                "combines": "import sys\nfrom itertools import groupby\n"
                "pairs = (line.rstrip('\\n').split('\\t', 1) for line in sys.stdin)\n"
                "for key, group in groupby(pairs, key=lambda pair: pair[0]):\n"
                "    print(key, sum(float(value) for _, value in group), sep='\\t')\n",
            },
        )
