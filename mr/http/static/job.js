// The form of a job: builds the arguments from rows, posts them, and shows what comes back. Everything that comes from
// elsewhere is put on the page as text.
"use strict";

const SHOWN_MAX = 1000;
const form = document.getElementById("post");
const rows = document.getElementById("rows");
const outcome = document.getElementById("outcome");
const run = document.getElementById("run");

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function addRow(focus) {
  const row = document.getElementById("row").content.cloneNode(true).firstElementChild;
  row.querySelector(".remove").addEventListener("click", () => { row.remove(); if (!rows.children.length) addRow(true); tell(); });
  rows.append(row);
  if (focus) row.querySelector("input").focus();
}

// The value as JSON text: numbers are passed on as they are written, so that none is rounded on its way.
function jsonOf(text) {
  try { JSON.parse(text); return text.trim(); } catch { return JSON.stringify(text); }
}

// The body, put together as text: the order of the keys is that of the rows.
function body() {
  const seen = new Set(), pairs = [];
  for (const row of rows.children) {
    const key = row.querySelector("[name=key]").value, value = row.querySelector("[name=value]").value;
    if (!key && !value) continue;
    if (seen.has(key)) throw new Error(`The key ${JSON.stringify(key)} stands there twice.`);
    seen.add(key);
    pairs.push(`${JSON.stringify(key)}: ${jsonOf(value)}`);
  }
  return `{"arguments": {${pairs.join(", ")}}}`;
}

function path() {
  return form.dataset.path + (document.getElementById("wait").checked ? "" : "?blocking=false");
}

function tell() {
  let text;
  try {
    text = `curl -s '${location.origin}${path()}' --json '${body().replaceAll("'", "'\\''")}'`;
  } catch (error) { text = error.message; }
  document.getElementById("command").textContent = text;
}

function show(...parts) {
  outcome.replaceChildren(...parts);
  outcome.hidden = false;
}

function links(id) {
  const line = element("p", "Request ");
  line.append(element("code", id), " · ");
  line.append(element("a", "picture", { href: form.dataset.request + id }), " · ");
  line.append(element("a", "result", { href: `${form.dataset.request}${id}/result` }));
  return line;
}

function plain(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}

function table(pairs) {
  const made = element("table"), head = made.createTHead().insertRow(), lines = made.createTBody();
  head.append(element("th", "key", { scope: "col" }), element("th", "value", { scope: "col" }));
  for (const [key, value] of pairs.slice(0, SHOWN_MAX)) {
    lines.insertRow().append(element("td", plain(key)), element("td", plain(value)));
  }
  return made;
}

function result(answer) {
  if (answer.result === null) return [element("p", "Accepted; it goes on without this page.")];
  if (!answer.result.pairs) return [element("p", "Done. The result was written elsewhere.")];
  const pairs = answer.result.pairs, parts = [];
  parts.push(element("p", pairs.length === 1 ? "1 pair" : `${pairs.length} pairs`, { class: "hint" }));
  if (pairs.length) parts.push(table(pairs));
  if (pairs.length > SHOWN_MAX) parts.push(element("p", `The first ${SHOWN_MAX} are shown.`, { class: "hint" }));
  return parts;
}

function failure(error) {
  const what = error.type ? `${error.type}: ${error.message}` : error.message || "It failed.";
  const parts = [element("p", what, { class: "failure" })];
  if (error.hint) parts.push(element("p", error.hint, { class: "hint" }));
  if (error.handler) parts.push(element("p", `in handler ${error.handler}, invocation ${error.invocation}`, { class: "hint" }));
  if (error.traceback) parts.push(element("pre", error.traceback));
  return parts;
}

async function post(event) {
  event.preventDefault();
  let text;
  try { text = body(); } catch (error) { show(element("p", error.message, { class: "failure" })); return; }
  run.disabled = true;
  const began = performance.now(), parts = [];
  const clock = element("h2", "Running");
  const ticking = setInterval(() => { clock.textContent = `Running, ${Math.round((performance.now() - began) / 1000)} s`; }, 1000);
  show(clock);
  try {
    const reply = await fetch(path(), { method: "POST", headers: { "Content-Type": "application/json" }, body: text });
    const answer = await reply.json().catch(() => ({}));
    const took = `${((performance.now() - began) / 1000).toFixed(2)} s`;
    const word = reply.ok ? (answer.result === null ? "Accepted" : "Done") : "Failed";
    parts.push(element("h2", `${word} after ${took}`));
    const id = reply.headers.get("X-MR-REQUEST-ID"), warning = reply.headers.get("X-MR-WARNING");
    if (warning) parts.push(element("p", warning, { class: "warning" }));
    if (id) parts.push(links(id));
    parts.push(...(reply.ok && "result" in answer ? result(answer) : failure(answer.error || { message: `status ${reply.status}` })));
  } catch (error) {
    parts.push(element("h2", "No answer"), element("p", error.message, { class: "failure" }));
  } finally {
    clearInterval(ticking);
    run.disabled = false;
  }
  show(...parts);
}

document.getElementById("add").addEventListener("click", () => { addRow(true); tell(); });
form.addEventListener("input", tell);
form.addEventListener("submit", post);
addRow(false);
form.hidden = false;
tell();
