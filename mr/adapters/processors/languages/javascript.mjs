// Runs one handler in JavaScript: an ES module that exports a generator, `handle(args, ctx)`.
//
// Speaks the protocol of docs/languages.rst. Input and output are synchronous, so that a handler may be a plain
// generator. What the handler prints goes to stderr: stdout belongs to the protocol.

import { readSync, writeSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { format } from "node:util";

const CHUNK = 65536;
const LONE = /\p{Surrogate}/u; // Half of a pair: no text.
const chunk = Buffer.alloc(CHUNK);
const pause = new Int32Array(new SharedArrayBuffer(4));
let held = []; // Buffers without a line end.
let lines = [];

function retried(call) {
  for (;;) {
    try {
      return call();
    } catch (error) {
      if (error.code !== "EAGAIN" && error.code !== "EINTR") throw error;
      Atomics.wait(pause, 0, 0, 1);
    }
  }
}

function writeAll(descriptor, text) {
  const data = Buffer.from(text);
  for (let done = 0; done < data.length; ) {
    const from = done;
    done += retried(() => writeSync(descriptor, data, from));
  }
}

// Pairs are written in pieces; whatever else is said takes them along.
let waiting = [];
let waitingLength = 0;

function say(message, atOnce = true) {
  const line = JSON.stringify(message);
  waiting.push(line);
  waitingLength += line.length;
  if (atOnce || waitingLength > CHUNK) {
    const text = waiting.join("\n") + "\n";
    waiting = [];
    waitingLength = 0;
    writeAll(1, text);
  }
}

function hear() {
  while (!lines.length) {
    const size = retried(() => readSync(0, chunk, 0, CHUNK, null));
    if (!size) process.exit(0);
    let from = 0;
    for (let at = chunk.indexOf(10); at >= 0 && at < size; at = chunk.indexOf(10, from)) {
      held.push(Buffer.from(chunk.subarray(from, at)));
      lines.push(Buffer.concat(held));
      held = [];
      from = at + 1;
    }
    if (from < size) held.push(Buffer.from(chunk.subarray(from, size)));
    lines.reverse();
  }
  return JSON.parse(lines.pop().toString("utf8"));
}

function print(...values) {
  writeAll(2, format(...values) + "\n");
}
for (const name of ["log", "info", "debug", "warn", "error", "trace"]) console[name] = print;
process.stdout.write = process.stderr.write = (text) => (writeAll(2, text), true);

// JSON.stringify would make null of NaN and leave out functions; both are mistakes here.
function checked(value) {
  const refused = (what) => {
    const error = new TypeError(`JSON cannot hold ${what}`);
    error.name = "NotSerialisable";
    throw error;
  };
  const look = (one, depth) => {
    if (typeof one === "string" && LONE.test(one)) refused("half of a surrogate pair");
    if (depth > 1000) refused("what is nested so deeply, or holds itself");
    if (typeof one === "number" ? !Number.isFinite(one) : !["string", "boolean", "object"].includes(typeof one))
      refused(typeof one === "number" ? String(one) : `a value of type ${typeof one}`);
    if (one !== null && typeof one === "object" && typeof one.toJSON !== "function")
      for (const part of Array.isArray(one) ? one : Object.values(one)) if (part !== undefined) look(part, depth + 1);
  };
  look(value, 0);
  return value;
}

function context(run) {
  const session = new Map(run.session);
  const line = (level) => (...values) => writeAll(2, `${level} [${run.handler}] ${format(...values)}\n`);
  return {
    workflow: run.workflow,
    request: run.request,
    invocation: run.invocation,
    step: run.step,
    handler: run.handler,
    /** Make the pairs that follow children of a step; only a mapper, before its first pair. */
    mapTo: (step) => say(["map", step]),
    session: {
      get(key) {
        if (!session.has(key)) throw new RangeError(`the session has no ${JSON.stringify(key)}`);
        return session.get(key);
      },
      has: (key) => session.has(key),
      list: () => [...session],
      set(key, value) {
        say(["set", key, checked(value)]);
        session.set(key, JSON.parse(JSON.stringify(value)));
      },
    },
    log: { debug: line("DEBUG"), info: line("INFO"), warn: line("WARNING"), error: line("ERROR") },
  };
}

// The input as [key, value], or [key, [value, …]]; `more` continues the values of the line before.
function* input() {
  let row = null;
  for (;;) {
    const [verb, ...fields] = hear();
    if (verb === "more") {
      for (const value of fields[0]) row[1].push(value);
      continue;
    }
    if (row) yield row;
    if (verb === "end") return;
    row = fields;
  }
}

function give(pair) {
  if (!Array.isArray(pair) || pair.length !== 2) {
    const error = new TypeError(`the handler yields ${format("%j", pair)}; expected [key, value]`);
    error.name = "ProtocolError";
    throw error;
  }
  say(["out", checked(pair[0]), checked(pair[1])], false);
}

let handle;
for (;;) {
  const [, run] = hear();
  try {
    if (!handle) handle = (await import(pathToFileURL(process.argv[2]).href)).handle;
    if (typeof handle !== "function") throw new TypeError("the handler exports no function handle");
    const rows = input();
    const made = handle(run.kind === "map" ? [...rows] : rows, context(run));
    if (made && typeof made[Symbol.asyncIterator] === "function") for await (const pair of made) give(pair);
    else if (made && typeof made !== "string" && typeof made[Symbol.iterator] === "function") for (const pair of made) give(pair);
    else throw new TypeError("handle is no generator; expected function* handle(args, ctx)");
    for (const _ of rows);
    say(["done"]);
  } catch (error) {
    const isError = error instanceof Error;
    say(["failed", isError ? error.name : "Error", isError ? error.message : String(error), isError ? error.stack : ""]);
  }
}
