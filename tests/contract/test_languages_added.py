"""The promises of handlers, kept by two languages that somebody added by `docs/languages.rst`: Lua and awk."""

from __future__ import annotations

from pathlib import Path

import pytest

from mr.adapters.language_file import languages
from mr.adapters.processors.command import CommandProcessor
from tests.contract.processor_contract import Dialect, ProcessorContract
from tests.servers import program

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "languages"
LANGUAGES = languages(str(EXAMPLE / "processors.toml"))
pytestmark = pytest.mark.kills


class Added(ProcessorContract):
    languages = LANGUAGES


class TestLua(Added):
    @pytest.fixture
    def dialect(self) -> Dialect:
        program("lua5.4", "-e", 'require "dkjson"')
        handle = "function handle(input, ctx)\n"
        each = handle + "  for key, value in input do "
        return Dialect(
            processor=CommandProcessor(LANGUAGES["lua"]),
            extension="lua",
            header='-- /// mr\n-- handler_type = "{kind}"\n-- required_capability = "none"\n-- ///\n',
            stack=("handler(the_mapper):6: in", "inner", "handler(the_mapper):9: in function 'handle'"),
            broken_line=6,
            code={
                "same": each + "yield(key, value) end\nend\n",
                "many": handle + "  for n = 1, 5000 do yield(n, 'v') end\nend\n",
                "maps": handle + "  ctx.map_to('next')\n  for key, value in input do yield(key, value) end\nend\n",
                "keeps": handle + "  ctx.set('a/é', 'one two')\n  yield('k', 1)\nend\n",
                "prints": each + "print('printed ' .. value .. ' é') yield(key, value) end\nend\n",
                "raises": "local function inner()\n  error('no such luck')\nend\n"
                + handle
                + "  inner()\n  return 1\nend\n",
                "broken": "function handle(input, ctx\nend\n",
                "exits": handle + "  os.exit(3)\nend\n",
                "kills_itself": handle + "  os.execute('kill -TERM $PPID; sleep 1')\nend\n",
                "hangs": handle + "  print('hanging')\n  while true do end\nend\n",
                "total": each
                + "local sum = 0 for _, one in ipairs(value) do sum = sum + one end yield(key, sum) end\nend\n",
                "combines": handle + "  local sums = {}\n"
                "  for key, value in input do sums[key] = (sums[key] or 0) + value end\n"
                "  for key, sum in pairs(sums) do yield(key, {sum}) end\nend\n",
                "recalls": each + "yield(key, ctx.get('a/é')) end\nend\n",
            },
        )


class TestAwk(Added):
    @pytest.fixture
    def dialect(self) -> Dialect:
        program("awk")
        folder = 'ENVIRON["MR_INVOCATION_FOLDER"]'
        total = '{ sums[$1] += $2 }\nEND { for (key in sums) print key "\\t" sums[key] }\n'
        return Dialect(
            processor=CommandProcessor(LANGUAGES["awk"]),
            extension="awk",
            header='# /// mr\n# handler_type = "{kind}"\n# required_capability = "none"\n# ///\n',
            has_types=False,
            code={
                "same": "{ print }\n",
                "many": 'END { for (n = 0; n < 5000; n++) print n "\\tv" }\n',
                "maps": "BEGIN { file = " + folder + ' "/map_to"; print "next" > file; close(file) }\n{ print }\n',
                "keeps": 'END { printf "one two" > (' + folder + ' "/session/a%2F%C3%A9"); print "k" }\n',
                "recalls": "{\n  if ((getline value < (" + folder + ' "/session/a%2F%C3%A9")) < 1) exit 1\n'
                '  print $1 "\\t" value\n}\n',
                "prints": '{ print "printed " $2 " é" > "/dev/stderr"; print }\n',
                "raises": '{ print "no such luck" > "/dev/stderr"; exit 1 }\n',
                "broken": "{ print (\n",
                "exits": "{ exit 3 }\n",
                "kills_itself": '{ system("kill -TERM $PPID; sleep 1") }\n',
                "hangs": '{ print "hanging" > "/dev/stderr"; while (1) ; }\n',
                "total": total,
                "combines": total,
            },
        )
