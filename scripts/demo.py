"""The demo that scripts/demo starts: a word count over real text, on mr and in plain Python, side by side."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
WORD = re.compile(rb"[a-z]+")
SKIP = "site-packages"
START_S = 30.0


def say(text: str) -> None:
    """Talk goes to stderr; only the result goes to stdout."""
    print(text, file=sys.stderr, flush=True)


def mr(*arguments: str, environ: dict[str, str], capture: bool = False) -> str:
    """One command, shown as a person would type it."""
    say("$ mr " + shlex.join(arguments))
    done = subprocess.run(
        [sys.executable, "-m", "mr.cli.main", *arguments],
        env=environ, check=False, text=True, stdout=subprocess.PIPE if capture else sys.stderr,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"demo: that failed with exit code {done.returncode}")
    return done.stdout or ""


class Processes:
    """What the demo starts, and ends by process id."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, command: list[str], environ: dict[str, str]) -> None:
        """Start a server; what it says goes into a file."""
        with (self._folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(command, env=environ, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self._started.append(process)

    def check(self) -> None:
        """Stop the demo if a server has ended."""
        for process in self._started:
            if process.poll() is not None:
                for log in sorted(self._folder.glob("*.log")):
                    say(f"--- {log.name}\n{log.read_text()[-2000:]}")
                raise SystemExit(f"demo: {process.args[0]!s} ended by itself")  # type: ignore[index]

    def stop(self) -> None:
        """End everything, the last first."""
        for process in reversed(self._started):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in reversed(self._started):
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what: str, is_there: Callable[[], bool], processes: Processes) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + START_S
    while not is_there():
        processes.check()
        if time.monotonic() > deadline:
            raise SystemExit(f"demo: {what} did not come up in {START_S:.0f} s")
        time.sleep(0.05)


def listens(port: int) -> bool:
    """Whether somebody accepts connections on a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def start_embedded(processes: Processes, folder: Path, environ: dict[str, str]) -> None:
    """One command, no server."""
    environ["MR_STORE"] = f"sqlite:///{folder / 'mr.db'}"
    port = free_port()
    say(f"$ mr dev --bind 127.0.0.1:{port} &")
    processes.start("dev", [sys.executable, "-m", "mr.cli.main", "dev", "--bind", f"127.0.0.1:{port}"], environ)
    wait_for("mr dev", lambda: listens(port), processes)


def start_cluster(processes: Processes, folder: Path, environ: dict[str, str], api: int) -> None:
    """A store, by that API of etcd, and a broker as a team would run them, and two workers that differ."""
    client, peer, tcp, http, web = (free_port() for _ in range(5))
    processes.start(
        "etcd",
        ["etcd", "--data-dir", str(folder / "etcd"),
         "--listen-client-urls", f"http://127.0.0.1:{client}", "--advertise-client-urls", f"http://127.0.0.1:{client}",
         "--listen-peer-urls", f"http://127.0.0.1:{peer}", "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
         "--initial-cluster", f"default=http://127.0.0.1:{peer}", *(["--enable-v2"] if api == 2 else [])],
        environ,
    )  # fmt: skip
    (folder / "nsq").mkdir()
    processes.start(
        "nsqd",
        ["nsqd", "--data-path", str(folder / "nsq"), "--tcp-address", f"127.0.0.1:{tcp}",
         "--http-address", f"127.0.0.1:{http}"],
        environ,
    )  # fmt: skip
    wait_for("etcd", lambda: listens(client), processes)
    wait_for("nsqd", lambda: listens(http), processes)
    environ["MR_STORE"] = f"etcd{api}://127.0.0.1:{client}"
    environ["MR_BROKER"] = f"nsq://127.0.0.1:{tcp}?http=127.0.0.1:{http}"
    environ["MR_AUTH"] = "off"
    say(f"$ export MR_STORE={environ['MR_STORE']} MR_BROKER='{environ['MR_BROKER']}' MR_AUTH=off")
    command = [sys.executable, "-m", "mr.cli.main"]
    say(f"$ mr web --bind 127.0.0.1:{web} &")
    processes.start("web", [*command, "web", "--bind", f"127.0.0.1:{web}"], environ)
    for number, capability in enumerate(("general", "adding")):
        say(f"$ mr worker --capabilities {capability} &")
        processes.start(f"worker{number}", [*command, "worker", "--capabilities", capability], environ)
    wait_for("mr web", lambda: listens(web), processes)


def handlers_for(is_cluster: bool, folder: Path) -> Path:
    """The sample handlers; on the cluster the reducer requires what one worker alone offers."""
    if not is_cluster:
        return HERE / "handlers"
    copy = folder / "handlers"
    shutil.copytree(HERE / "handlers", copy)
    reducer = copy / "words" / "sum.py"
    reducer.write_text(reducer.read_text().replace("required_capability: none", "required_capability: adding"))
    return copy


def plain_count(root: Path) -> tuple[Counter[str], int]:
    """The reference: the same words, counted by a loop. Also the number of bytes."""
    counts: Counter[bytes] = Counter()
    size = 0
    for path in root.glob("**/*.py"):
        if path.is_file() and SKIP not in path.parts:
            text = path.read_bytes()
            size += len(text)
            counts.update(WORD.findall(text.lower()))
    return Counter({word.decode(): count for word, count in counts.items()}), size


def run(is_cluster: bool, api: int) -> int:
    """The demo; 0 if all counts agree."""
    root = Path(sysconfig.get_paths()["stdlib"])
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mr-demo-")))
        processes = Processes(folder)
        stack.callback(processes.stop)
        environ = {name: value for name, value in os.environ.items() if not name.startswith("MR_")}
        if is_cluster:
            start_cluster(processes, folder, environ, api)
        else:
            start_embedded(processes, folder, environ)
        mr("workflow", "create", "samples", "Sample handlers.", environ=environ)
        mr("handler", "sync", "samples", str(handlers_for(is_cluster, folder)), environ=environ)
        step = ("step", "create", "samples")
        mr(*step, "count_range", "Count one range.", "words_count", "", "words_sum", environ=environ)
        mr(*step, "count_files", "Cut files into ranges.", "words_ranges", "", "words_sum", environ=environ)
        mr("job", "create", "samples", "count", "Count words.", "count_files", environ=environ)
        begun = time.monotonic()
        answer = mr(
            "run", "samples/count", f"root={root}", "pattern=**/*.py", f"skip={SKIP}", "chunk_kb=512",
            environ=environ, capture=True,
        )  # fmt: skip
        seconds = time.monotonic() - begun
        counts = Counter(dict(json.loads(answer)["pairs"]))
        say("counting the same in plain Python, to check …")
        begun = time.monotonic()
        expected, size = plain_count(root)
        plain_seconds = time.monotonic() - begun
    say("")
    for word, count in counts.most_common(10):
        print(f"{count:>9,}  {word}")
    say(
        f"\n{size / 1e6:.1f} MB in {seconds:.1f} s: {size / 1e6 / seconds:.1f} MB/s"
        f" (plain Python, one process: {size / 1e6 / plain_seconds:.1f} MB/s)"
    )
    if counts != expected:
        wrong = sum(counts[word] != expected[word] for word in counts | expected)
        say(f"✖ {wrong} of {len(expected):,} words have another count than a plain loop says")
        return 1
    say(f"✔ all {len(expected):,} words have the count that a plain loop says")
    return 0


if __name__ == "__main__":
    sys.exit(run("--cluster" in sys.argv[1:], 2 if "--etcd2" in sys.argv[1:] else 3))
