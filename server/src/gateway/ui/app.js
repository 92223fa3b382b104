"use strict";

// The admin key lives in this tab's session storage and goes nowhere but into the Authorization header.
const KEY = "deltadb.key";
const byId = (id) => document.getElementById(id);
const path = (...names) => "/" + names.map(encodeURIComponent).join("/");

/** An element with properties and children; text never becomes markup. */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter((child) => child !== null));
  return element;
}

// ---- Talking to the server -------------------------------------------------------------------------------------

/** A refusal, with the problem document that explains it. */
class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `The server answered ${status}.`);
    this.status = status;
    this.problem = problem;
  }
}

async function ask(method, target, { body, headers = {} } = {}) {
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(target, { method, headers, body, cache: "no-store" });
  } catch {
    throw new Refused(0, { detail: "The server cannot be reached. A write that was under way may or may not be stored." });
  }
  const text = await answer.text();
  if (answer.ok) return { text, tag: answer.headers.get("ETag"), json: () => JSON.parse(text) };
  let problem = {};
  try { problem = JSON.parse(text); } catch { problem = { detail: text }; }
  if (answer.status === 401) signOut(problem.detail);
  throw new Refused(answer.status, problem);
}

// ---- Small helpers ---------------------------------------------------------------------------------------------

let noticeTimer;
function notice(text) {
  byId("notice").textContent = text;
  clearTimeout(noticeTimer);
  noticeTimer = setTimeout(() => { byId("notice").textContent = ""; }, 4000);
}

/** Shows what went wrong; a refused credential already shows in the sign-in form. */
function report(error) {
  if (error.status !== 401) notice(error.message);
}

function sure(text, yes) {
  const dialog = byId("question");
  byId("question-text").textContent = text;
  byId("question-yes").textContent = yes;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

/** Lays JSON out by moving white space only, so that no number loses a digit. */
function layOut(text) {
  JSON.parse(text);
  let out = "", depth = 0, inString = false;
  const line = () => "\n" + "  ".repeat(depth);
  for (let i = 0; i < text.length; i += 1) {
    const c = text[i];
    if (inString) {
      out += c;
      if (c === "\\") out += text[i += 1];
      else if (c === '"') inString = false;
    } else if (c === '"') { inString = true; out += c;
    } else if (/\s/.test(c)) { continue;
    } else if (c === "{" || c === "[") {
      const closing = /^\s*[}\]]/.exec(text.slice(i + 1, i + 64));
      if (closing) { out += c + closing[0].trim(); i += closing[0].length; } else { depth += 1; out += c + line(); }
    } else if (c === "}" || c === "]") { depth -= 1; out += line() + c;
    } else { out += c === "," ? c + line() : c === ":" ? ": " : c; }
  }
  return out;
}

/** One entry of a list: a button, marked when it is the chosen one. */
function entry(label, note, chosen, choose) {
  const button = make("button", { type: "button", onclick: choose }, make("span", {}, label));
  if (note !== null) button.append(make("span", {}, note));
  if (chosen) button.setAttribute("aria-current", "true");
  return make("li", {}, button);
}

const bytes = (n) => n < 1024 ? `${n} B` : n < 1 << 20 ? `${(n / 1024).toFixed(1)} KiB`
  : n < 1 << 30 ? `${(n / (1 << 20)).toFixed(1)} MiB` : `${(n / (1 << 30)).toFixed(2)} GiB`;
const count = (n) => n.toLocaleString("en");

// ---- The editor, for documents and templates -------------------------------------------------------------------

/**
 * Shows one text for editing. `subject`: {title, name, text, tag, isNew, hint, nameLabel, target(name), done(name, gone),
 * conditions: whether its resource has versions, problem: what is wrong with it already}.
 */
function edit(place, subject) {
  const area = make("textarea", { id: place.id + "-text", value: subject.text, spellcheck: false });
  const name = make("input", { id: place.id + "-name", value: subject.name, required: true, maxLength: 512 });
  const problem = make("p", { className: "problem", role: "alert" });
  const violations = make("ul", { className: "problem" });
  const conflict = make("div");
  let saved = subject.text;

  const show = (error) => {
    problem.textContent = error ? error.message : "";
    const errors = error?.problem?.errors ?? [];
    violations.replaceChildren(...errors.map((one) =>
      make("li", {}, make("code", {}, one.pointer || one.key || "/"), ` ${one.keyword ? one.keyword + ": " : ""}${one.detail}`)));
    conflict.replaceChildren();
    conflict.className = "";
  };

  const onConflict = (error) => {
    if (subject.isNew) return show(new Refused(412, { detail: "This key exists already. Open it, or choose another." }));
    show(null);
    conflict.className = "conflict";
    conflict.setAttribute("role", "alert");
    const gone = error.problem.version === undefined;
    conflict.append(make("p", {}, gone ? "It was deleted while you were editing." :
      `Someone else changed it while you were editing: it is now version ${error.problem.version}.`));
    conflict.append(make("div", { className: "row start" },
      gone ? null : make("button", { type: "button", className: "quiet", onclick: () => subject.done(subject.name, false) },
        "Drop my text and load theirs"),
      make("button", { type: "button", className: "danger", onclick: () => save(gone ? "create" : error.problem.version) },
        gone ? "Create it again from my text" : "Overwrite theirs with my text")));
  };

  async function save(over) {
    show(null);
    const headers = {};
    if (subject.conditions) {
      if (subject.isNew || over === "create") headers["If-None-Match"] = "*";
      else headers["If-Match"] = over === undefined ? subject.tag : `"${over}"`;
    }
    try {
      JSON.parse(area.value);
    } catch (error) {
      return show(new Error(`This is not JSON yet: ${error.message}`));
    }
    try {
      await ask("PUT", subject.target(name.value), { body: area.value, headers });
      saved = area.value;
      notice("Saved.");
      subject.done(name.value, false);
    } catch (error) {
      if (error.status === 412) onConflict(error); else show(error);
    }
  }

  async function remove() {
    if (!await sure(`Delete “${subject.name}”? This cannot be undone.`, "Delete")) return;
    try {
      await ask("DELETE", subject.target(subject.name), { headers: subject.conditions ? { "If-Match": subject.tag } : {} });
      saved = area.value;
      notice("Deleted.");
      subject.done(subject.name, true);
    } catch (error) {
      if (error.status === 412) onConflict(error); else show(error);
    }
  }

  const arrange = () => {
    try { area.value = layOut(area.value); show(null); } catch (error) { show(error); }
  };
  const form = make("form", { className: "editor", onsubmit: (event) => { event.preventDefault(); save(); } },
    make("h2", {}, subject.title),
    subject.isNew ? make("label", { htmlFor: name.id }, subject.nameLabel) : null,
    subject.isNew ? name : null,
    make("label", { htmlFor: area.id }, subject.hint),
    area, problem, violations, conflict,
    make("div", { className: "row start" },
      make("button", { type: "submit" }, subject.isNew ? "Create" : "Save"),
      make("button", { type: "button", className: "quiet", onclick: arrange }, "Format"),
      subject.isNew ? null : make("button", { type: "button", className: "danger", onclick: remove }, "Delete")));
  form.addEventListener("keydown", (event) => {
    if (event.key === "s" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); form.requestSubmit(); }
  });
  place.replaceChildren(form);
  place.isDirty = () => area.value !== saved;
  show(subject.problem ?? null);
  area.setSelectionRange(0, 0);
  (subject.isNew ? name : area).focus();
}

function clearEditor(place, text) {
  place.isDirty = () => false;
  place.replaceChildren(make("p", { className: "empty" }, text));
}

async function mayLeave(place) {
  return !place.isDirty?.() || sure("Your changes here are not saved. Drop them?", "Drop them");
}

// ---- Documents -------------------------------------------------------------------------------------------------

const view = { schema: null, key: null, after: null, next: null };

async function showSchemas() {
  const { schemas } = (await ask("GET", "/api/schemas?counts=true")).json();
  if (view.schema && !schemas.some((one) => one.id === view.schema)) schemas.push({ id: view.schema, entities: 0 });
  if (!view.schema && schemas.length) view.schema = schemas[0].id;
  const items = schemas.map((one) => entry(one.id, count(one.entities), one.id === view.schema, () => openSchema(one.id)));
  byId("schemas").replaceChildren(...items);
  if (!items.length) byId("schemas").append(make("li", { className: "empty" }, "No documents yet. Open a schema by name to begin."));
}

async function openSchema(schema) {
  if (!await mayLeave(byId("document-editor"))) return;
  Object.assign(view, { schema, key: null, after: null });
  byId("prefix").value = "";
  clearEditor(byId("document-editor"), "Choose a document, or make a new one.");
  await Promise.all([showSchemas(), showKeys()]).catch(report);
}

async function showKeys() {
  byId("listing-title").textContent = view.schema ?? "Documents";
  byId("new-document").disabled = !view.schema;
  if (!view.schema) return byId("keys").replaceChildren();
  const query = new URLSearchParams({ limit: "50", prefix: byId("prefix").value });
  if (view.after !== null) query.set("after", view.after);
  const schema = view.schema;
  const page = (await ask("GET", `${path("entity", schema)}?${query}`)).json();
  if (schema !== view.schema) return;
  view.next = page.next;
  byId("keys").replaceChildren(...page.entries.map((one) =>
    entry(one.key, `v${one.version}`, one.key === view.key, () => openDocument(one.key))));
  if (!page.entries.length) byId("keys").append(make("li", { className: "empty" }, "Nothing here."));
  byId("first-page").disabled = view.after === null;
  byId("next-page").disabled = page.next === null;
}

async function openDocument(key) {
  if (!await mayLeave(byId("document-editor"))) return;
  await loadDocument(key).catch(report);
}

function documentSubject(more) {
  const schema = view.schema;
  return {
    conditions: true, nameLabel: "Key", target: (name) => path("entity", schema, name),
    done: (name, gone) => afterDocument(name, gone).catch(report), ...more,
  };
}

async function loadDocument(key) {
  const { text, tag } = await ask("GET", path("entity", view.schema, key));
  view.key = key;
  edit(byId("document-editor"), documentSubject({
    title: key, name: key, text, tag, isNew: false, hint: `Document, version ${tag.replaceAll('"', "")}`,
  }));
  await showKeys();
}

async function afterDocument(name, gone) {
  view.key = gone ? null : name;
  if (gone) clearEditor(byId("document-editor"), "Choose a document, or make a new one.");
  else await loadDocument(name);
  await Promise.all([showSchemas(), showKeys()]);
}

async function newDocument() {
  if (!await mayLeave(byId("document-editor"))) return;
  view.key = null;
  edit(byId("document-editor"), documentSubject({
    title: `New document in ${view.schema}`, name: "", text: "{\n  \n}", tag: null, isNew: true, hint: "Document",
  }));
}

// ---- Templates -------------------------------------------------------------------------------------------------

let chosenTemplate = null;

async function showTemplates() {
  const { templates } = (await ask("GET", "/admin/schemas")).json();
  byId("template-list").replaceChildren(...templates.map((id) =>
    entry(id, null, id === chosenTemplate, () => openTemplate(id))));
  if (!templates.length) byId("template-list").append(make("li", { className: "empty" }, "No templates: any JSON is accepted."));
}

function templateSubject(more) {
  return {
    conditions: false, nameLabel: "Schema id", hint: "JSON Schema", target: (name) => path("schema", name),
    done: (name, gone) => afterTemplate(name, gone).catch(report), ...more,
  };
}

const EMPTY_TEMPLATE = '{\n  "type": "object",\n  "required": [],\n  "properties": {}\n}';

async function loadTemplate(id) {
  let text = EMPTY_TEMPLATE, problem = null;
  try {
    ({ text } = await ask("GET", path("schema", id)));
  } catch (error) {
    // A file that does not compile is not handed out; here it can be replaced or removed.
    if (error.problem?.error !== "template_damaged") throw error;
    problem = error;
  }
  chosenTemplate = id;
  edit(byId("template-editor"), templateSubject({ title: id, name: id, text, isNew: false, problem }));
  await showTemplates();
}

async function openTemplate(id) {
  if (!await mayLeave(byId("template-editor"))) return;
  await loadTemplate(id).catch(report);
}

async function afterTemplate(name, gone) {
  chosenTemplate = gone ? null : name;
  if (gone) clearEditor(byId("template-editor"), "Choose a template, or make a new one.");
  else await loadTemplate(name);
  await showTemplates();
}

async function newTemplate() {
  if (!await mayLeave(byId("template-editor"))) return;
  chosenTemplate = null;
  edit(byId("template-editor"), templateSubject({ title: "New template", name: "", text: EMPTY_TEMPLATE, isNew: true }));
}

// ---- Figures ---------------------------------------------------------------------------------------------------

let last = null;

async function showFigures() {
  const stats = (await ask("GET", "/admin/stats")).json();
  const now = Date.now();
  const all = stats.totals ?? {};
  const seconds = last ? (now - last.at) / 1000 : null;
  const rate = (name) => seconds ? `${count(Math.round(((all[name] ?? 0) - (last.all[name] ?? 0)) / seconds))} /s` : "…";
  const reads = (all.cache_hits ?? 0) + (all.cache_misses ?? 0);
  const commitMs = all.commits ? all.commit_duration_sum_ns / all.commit_duration_count / 1e6 : null;
  const uptime = stats.process?.start_unix_seconds ? now / 1000 - stats.process.start_unix_seconds : null;
  const cards = [
    ["Documents", count(all.entities ?? 0)],
    ["HTTP requests", rate("http_requests")],
    ["Wire requests", rate("wire_requests")],
    ["Commits", rate("commits")],
    ["Time per commit", commitMs ? `${commitMs.toFixed(3)} ms` : "…"],
    ["Served from cache", reads ? `${(100 * all.cache_hits / reads).toFixed(1)} %` : "…"],
    ["Cache", bytes(all.cache_bytes ?? 0)],
    ["Live data", bytes(all.live_bytes ?? 0)],
    ["Log on disk", bytes(all.segments_bytes ?? 0)],
    ["Connections", count(all.connections ?? 0)],
    ["Memory", bytes(stats.process?.resident_bytes ?? 0)],
    ["Up", uptime === null ? "…" : uptime < 5400 ? `${Math.round(uptime / 60)} min` : `${(uptime / 3600).toFixed(1)} h`],
  ];
  byId("cards").replaceChildren(...cards.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
  const shards = stats.shards ?? [];
  const names = Object.keys(shards[0] ?? {});
  const head = make("tr", {}, make("th", { scope: "col" }, "Figure"),
    ...shards.map((_, number) => make("th", { scope: "col" }, `Shard ${number}`)));
  byId("shards").replaceChildren(make("thead", {}, head), make("tbody", {}, ...names.map((name) =>
    make("tr", {}, make("th", { scope: "row" }, name.replaceAll("_", " ")),
      ...shards.map((shard) => make("td", {}, count(shard[name] ?? 0)))))));
  last = { at: now, all };
}

async function showHealth() {
  const pill = byId("health");
  let reasons = [];
  try {
    const health = (await ask("GET", "/health")).json();
    pill.textContent = `Healthy · ${health.version}`;
    pill.className = "pill good";
  } catch (error) {
    pill.textContent = error.status ? "Not ready" : "Unreachable";
    pill.className = "pill bad";
    reasons = error.problem.reasons ?? [error.message];
  }
  byId("reasons").replaceChildren(...reasons.map((reason) => make("li", {}, reason)));
}

// ---- Sections and sign-in --------------------------------------------------------------------------------------

const sections = {
  documents: async () => { await showSchemas(); await showKeys(); },
  templates: showTemplates,
  figures: showFigures,
};
let current = null;

async function showSection() {
  const signedIn = sessionStorage.getItem(KEY) !== null;
  const wanted = location.hash.replace("#/", "");
  current = signedIn ? (wanted in sections ? wanted : "documents") : null;
  byId("sign-in").hidden = signedIn;
  byId("forget").hidden = !signedIn;
  document.querySelector("nav").hidden = !signedIn;
  for (const name of Object.keys(sections)) {
    byId(name).hidden = name !== current;
    const link = document.querySelector(`nav a[href="#/${name}"]`);
    if (name === current) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  if (!signedIn) return byId("key").focus();
  await sections[current]().catch(report);
}

function signOut(reason = "") {
  sessionStorage.removeItem(KEY);
  Object.assign(view, { schema: null, key: null, after: null });
  clearEditor(byId("document-editor"), "Choose a document, or make a new one.");
  clearEditor(byId("template-editor"), "Choose a template, or make a new one.");
  byId("keys").replaceChildren();
  byId("schemas").replaceChildren();
  byId("sign-in-problem").textContent = reason;
  showSection();
}

byId("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  byId("sign-in-problem").textContent = "";
  sessionStorage.setItem(KEY, byId("key").value.trim());
  byId("key").value = "";
  showSection();
});
byId("forget").addEventListener("click", async () => {
  if (await mayLeave(byId("document-editor")) && await mayLeave(byId("template-editor"))) signOut();
});
byId("open-schema").addEventListener("submit", (event) => {
  event.preventDefault();
  openSchema(byId("schema-name").value);
  byId("schema-name").value = "";
});
byId("new-document").addEventListener("click", newDocument);
byId("new-template").addEventListener("click", newTemplate);

let searchTimer;
byId("prefix").addEventListener("input", () => {
  clearTimeout(searchTimer);
  searchTimer = setTimeout(() => turnPage(null), 200);
});
function turnPage(after) {
  view.after = after;
  showKeys().catch(report);
}
byId("first-page").addEventListener("click", () => turnPage(null));
byId("next-page").addEventListener("click", () => turnPage(view.next));

addEventListener("hashchange", () => { showSection(); byId("main").focus(); });
addEventListener("beforeunload", (event) => {
  if (byId("document-editor").isDirty?.() || byId("template-editor").isDirty?.()) event.preventDefault();
});
setInterval(() => { if (current === "figures" && !document.hidden) showFigures().catch(() => {}); }, 2000);
setInterval(() => { if (!document.hidden) showHealth(); }, 5000);
clearEditor(byId("document-editor"), "Choose a document, or make a new one.");
clearEditor(byId("template-editor"), "Choose a template, or make a new one.");
showHealth();
showSection();
