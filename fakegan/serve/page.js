"use strict";
// The page: files go to POST predict a few at a time; texts of files and of the server are never read as markup.
const COLUMNS = ["file", "score", "call", "verdict", "warning", "error"];  // of the CSV, as those of fakegan.predict
const AT_ONCE = 2, GROUP = 4;  // requests under way, pictures of each
const $ = id => document.getElementById(id);
let model = null, token = "", waiting = [], passed = [], results = [], running = 0, total = 0, given = 0;
let sorted = {by: "number", down: false};
try { token = sessionStorage.getItem("token") || ""; } catch { /* the browser keeps nothing */ }

function el(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

async function call(path, options = {}) {
  for (;;) {
    const answer = await fetch(path, {...options, headers: token ? {Authorization: `Bearer ${token}`} : {}});
    if (answer.status === 401) ask();
    if (answer.status !== 503) return answer;
    await new Promise(done => setTimeout(done, 1000 * (Number(answer.headers.get("Retry-After")) || 1)));
  }
}

function ask() {
  $("ask").hidden = false; $("drop").hidden = true; $("token").focus();
  $("status").textContent = token ? "That is not the token of this page." : "";
}

async function begin() {
  const answer = await call("model").catch(() => null);
  if (answer?.status === 401) return;
  if (!answer?.ok) { $("status").textContent = "The server does not answer: start it again."; return; }
  model = await answer.json();
  $("ask").hidden = true; $("drop").hidden = false; $("status").textContent = "";
  const [low, high] = model.band;
  $("about").textContent = `By ${model.name}. Called fake from P(fake) ${model.threshold.toFixed(3)}` +
    (low < high ? ` (dashed), unsure from ${low.toFixed(3)} to ${high.toFixed(3)} (grey).` : " (dashed).") +
    (model.learnt_from ? ` It has learnt from: ${model.learnt_from.join(", ")}.` : "");
  $("guessing").hidden = !model.warning; $("guessing").textContent = `Warning: ${model.warning}`;
  $("card").hidden = !model.card; $("markdown").textContent = model.card;
}

function add(files) {
  if (!model) return;
  if (!files.length) { $("status").textContent = "No file was in it: drop, paste or choose picture files."; return; }
  const pictures = files.filter(({name}) => !noPicture(name));
  passed.push(...files.filter(({name}) => noPicture(name)).map(({name}) => name.split("/").pop()));
  for (const file of pictures) waiting.push({...file, number: given++});
  total += pictures.length;
  $("results").hidden = !total;
  progress(); pump();
}

function noPicture(name) {  // by its name, in a folder alone: as fakegan.predict
  const base = name.split("/").pop().toLowerCase(), suffix = base.slice(base.lastIndexOf("."));
  const known = base.startsWith(".") || model.no_pictures.includes(base) || model.no_pictures.includes(suffix);
  return name.includes("/") && (known || name.startsWith("__MACOSX/"));
}

function pump() {
  while (running < AT_ONCE && waiting.length) {
    const group = [], most = model.limits.mib * 2 ** 20 - 2 ** 16;  // room for what stands between the files
    let bytes = 0;
    while (waiting.length && group.length < Math.min(GROUP, model.limits.files)) {
      const next = waiting[0];
      const error = next.error ?? (next.file.size > most ? `more than ${model.limits.mib} MiB` : "");
      if (error) {
        show({file: next.name, number: next.number, error});
        waiting.shift();
        continue;
      }
      if ((bytes += next.file.size) > most) break;
      group.push(waiting.shift());
    }
    if (group.length) { running += 1; send(group).finally(() => { running -= 1; pump(); }); }
  }
}

async function send(group) {
  const form = new FormData();
  for (const {file, name} of group) form.append("files", file, name);
  let rows, error;
  try {
    const answer = await call("predict?pictures=true", {method: "POST", body: form});
    if (answer.ok) rows = await answer.json(); else error = await reason(answer);
  } catch { error = "not sent: the server does not answer, or the file has changed"; }
  group.forEach(({file, name, number}, i) =>
    show({...(rows ? rows[i] : {error}), file: name, number, source: file}));
}

async function reason(answer) {
  const {detail} = await answer.json().catch(() => ({}));
  return detail ?? `the server failed (${answer.status}): its terminal says why`;
}

function show(row) {
  row = {score: null, call: "", verdict: "", warning: "", pictures: {}, ...row};
  row.element = tableRow(row);
  results.push(row);
  order();
  const next = results[results.indexOf(row) + 1];
  $("rows").insertBefore(row.element, next?.element ?? null);  // no row that has focus moves
  progress();
}

function progress() {
  const left = total - results.length, bad = results.filter(row => row.error).length;
  $("progress").max = total || 1; $("progress").value = results.length; $("progress").hidden = !left;
  const said = `${results.length} of ${total} pictures done${bad ? `, ${bad} could not be judged` : ""}.`;
  const names = passed.slice(0, 3).join(", ") + (passed.length > 3 ? ", ..." : ".");
  const kind = passed.length > 1 ? "files are no pictures" : "file is no picture";
  const without = passed.length ? `${passed.length} ${kind}: ${names}` : "";
  $("status").textContent = [total ? said : "", without].filter(Boolean).join(" ");
}

function cell(kind, ...children) {
  const made = el("td", {className: kind}, ...children);
  made.setAttribute("role", "cell");
  return made;
}

function tableRow(row) {
  const verdict = row.error ? "error" : row.verdict, {face, ...others} = row.pictures;
  const notes = [row.error, row.warning].filter(Boolean).map(text => el("p", {textContent: text}));
  if (Object.keys(others).length) {
    const figures = Object.entries(others).map(([name, src]) =>
      el("figure", {}, el("img", {src, alt: `${name} of ${row.file}`}), el("figcaption", {textContent: name})));
    notes.push(el("details", {}, el("summary", {textContent: "Reconstruction and residual"}), ...figures));
  }
  const ariaLabel = `Why? Where the score of ${row.file} comes from`;
  if (face) notes.push(el("button", {textContent: "Why?", ariaLabel, onclick: explain(row)}));
  const made = el("tr", {className: verdict},
    cell("picture", ...(face ? [el("img", {src: face, alt: ""})] : []), el("span", {textContent: row.file})),
    cell("verdict", el("b", {textContent: row.error ? "not judged" : verdict})),
    cell("score", ...(row.error ? [] : bar(row))), cell("notes", ...notes));
  made.setAttribute("role", "row");
  return made;
}

const explain = row => async ({target}) => {
  target.disabled = true;
  const form = new FormData(), said = el("p", {textContent: "Blurring each part of the face in turn ..."});
  form.append("files", row.source, row.file);
  said.setAttribute("role", "status");
  target.after(said);
  try {
    const answer = await call("explain", {method: "POST", body: form});
    if (!answer.ok) throw new Error(await reason(answer));
    const full = answer.headers.get("Full-Colour"), src = URL.createObjectURL(await answer.blob());
    said.textContent = `Orange places speak for fake, blue ones for real; full colour is ${full} in log odds.`;
    said.before(el("img", {src, alt: `where the score of ${row.file} comes from`}));
    target.remove();
  } catch (error) { said.textContent = `No answer: ${error.message}`; target.disabled = false; }
};

function bar({score, call}) {
  const made = el("div", {className: "bar"}, ...["band", "threshold", "mark"].map(name => el("i", {className: name})));
  const [low, high] = model.band, values = {score, low, high, threshold: model.threshold};
  for (const [name, value] of Object.entries(values)) made.style.setProperty(`--${name}`, value);
  made.setAttribute("role", "img");
  made.setAttribute("aria-label", `${score.toFixed(3)} of 1; the threshold is ${model.threshold.toFixed(3)}`);
  const called = el("span", {className: "soft", textContent: `called ${call}`});
  return [el("span", {textContent: score.toFixed(3)}), made, called];
}

function order() {
  const {by, down} = sorted, key = row => row[by] ?? -1;
  results.sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0) * (down ? -1 : 1));
}

function csv() {
  const quoted = value => /[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
  const lines = [COLUMNS, ...results.map(row => COLUMNS.map(name => String(row[name] ?? "")))];
  const text = lines.map(line => line.map(quoted).join(",") + "\n").join("");
  const url = URL.createObjectURL(new Blob([text], {type: "text/csv"}));
  el("a", {href: url, download: "verdicts.csv"}).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

async function* below(entry) {  // the files of what was dropped, folders searched through
  const name = entry.fullPath.slice(1);
  try {
    if (entry.isFile) {
      yield {file: await new Promise((...done) => entry.file(...done)), name};
      return;
    }
    const reader = entry.createReader();
    for (let part; (part = await new Promise((...done) => reader.readEntries(...done))).length;)
      for (const inner of part) yield* below(inner);
  } catch { yield {name, error: "the browser cannot read it"}; }
}

async function dropped(data) {
  const entries = [...data.items].map(item => item.webkitGetAsEntry?.()).filter(Boolean), found = [];
  if (!entries.length) return chosen(data.files);
  for (const entry of entries) for await (const file of below(entry)) found.push(file);
  add(found);
}

const chosen = files => add([...files].map(file => ({file, name: file.webkitRelativePath || file.name})));

for (const id of ["files", "folder"]) $(id).addEventListener("change", ({target}) => {
  chosen(target.files);
  target.value = "";
});
document.addEventListener("paste", event => chosen(event.clipboardData.files));
document.addEventListener("dragover", event => { event.preventDefault(); $("drop").classList.add("over"); });
document.addEventListener("dragleave", () => $("drop").classList.remove("over"));
document.addEventListener("drop", event => {
  event.preventDefault();
  $("drop").classList.remove("over");
  dropped(event.dataTransfer);
});
$("csv").addEventListener("click", csv);
$("clear").addEventListener("click", () => {
  total -= results.length;
  results = []; passed = [];
  $("rows").replaceChildren();
  $("results").hidden = !total;
  progress();
  $("files").focus();
});
for (const button of document.querySelectorAll("[data-by]")) button.addEventListener("click", () => {
  sorted = {by: button.dataset.by, down: sorted.by === button.dataset.by && !sorted.down};
  for (const head of document.querySelectorAll(".sort")) head.removeAttribute("aria-sort");
  button.parentElement.setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
  order();
  $("rows").append(...results.map(row => row.element));
});
$("ask").addEventListener("submit", event => {
  event.preventDefault(); token = $("token").value;
  try { sessionStorage.setItem("token", token); } catch { /* it is asked for again */ }
  begin();
});
$("here").textContent = new URL(".", location).href;
$("api").addEventListener("toggle", async () => {
  const {paths} = await (await call("openapi.json")).json();
  for (const [path, methods] of Object.entries(paths)) for (const [method, {description}] of Object.entries(methods))
    $("paths").append(el("dt", {textContent: `${method.toUpperCase()} ${path}`}), el("dd", {textContent: description}));
}, {once: true});
begin();
