"use strict";

const bySearch = document.getElementById("search");
const byClass = document.getElementById("by-class");
const byReason = document.getElementById("by-reason");
const onlyTagged = document.getElementById("only-tagged");
const cards = [...document.querySelectorAll(".card")];
const said = document.getElementById("said");

// --- Filters: without one the first pictures of each gallery, or all on demand; with one all that it fits.

function fits(card, wanted) {
  return (!byClass.value || JSON.parse(card.dataset.classes).includes(byClass.value)) &&
    (!byReason.value || card.dataset.reason === byReason.value) &&
    (!onlyTagged.checked || tags.has(card.dataset.key)) &&
    wanted.every((word) => card.dataset.text.includes(word));
}

function show() {
  if (!byClass) return;
  const wanted = bySearch.value.toLowerCase().split(/\s+/).filter(Boolean);
  const filtered = wanted.length || byClass.value || byReason.value || onlyTagged.checked;
  for (const gallery of document.querySelectorAll(".gallery")) {
    const more = gallery.querySelector(".more");
    const all = filtered || more.getAttribute("aria-expanded") === "true";
    let extras = 0;
    for (const card of gallery.querySelectorAll(".card")) {
      const extra = "extra" in card.dataset;
      card.hidden = !fits(card, wanted) || (!all && extra);
      extras += extra;
    }
    more.hidden = filtered || !extras;
    more.textContent = all ? "Show fewer" : `Show ${extras} more`;
    gallery.querySelector(".none").hidden = gallery.querySelector(".card:not([hidden])") !== null;
  }
  const count = cards.filter((card) => !card.hidden).length;
  document.getElementById("shown").textContent = `${count} of ${cards.length} pictures`;
  document.getElementById("elsewhere").hidden = count > 0 || !wanted.length;
}

// --- Tags: what is to become of a sample, by its key; kept in this browser, and exported as a clean list.

const classNames = JSON.parse(document.getElementById("class-names")?.dataset.names ?? "[]");
const ofPairs = document.body.dataset.task === "pairs";
const relabels = document.body.dataset.task === "classification";
const storage = `rhostream tags ${document.body.dataset.fingerprint}`;
const tags = new Map();  // key: {action, class}

function stored() {
  try {
    return JSON.parse(localStorage.getItem(storage) ?? "[]");
  } catch {
    return [];  // a browser that keeps nothing for files
  }
}

function store() {
  try {
    localStorage.setItem(storage, JSON.stringify([...tags]));
  } catch {
    // The tags are still in the page, to be exported.
  }
}

function tagOf(value) {
  if (!value) return null;
  const [action, name] = value.startsWith("relabel ") ? ["relabel", value.slice(8)] : [value, null];
  return { action, class: name };
}

function valueOf(tag) {
  return !tag ? "" : tag.action === "relabel" ? `relabel ${tag.class}` : tag.action;
}

function setTag(key, tag) {
  if (tag) tags.set(key, tag);
  else tags.delete(key);
  store();
  showTags();
}

function showTags() {
  for (const card of cards) {
    const tag = tags.get(card.dataset.key);
    const select = card.querySelector(".tag");
    const value = valueOf(tag);
    if (tag && ![...select.options].some((option) => option.value === value)) addOption(select, value, `→ ${tag.class}`);
    select.value = value;
    card.classList.toggle("tagged", Boolean(tag));
  }
  if (!byClass) return;
  const count = tags.size;
  document.getElementById("tags").textContent = count === 1 ? "1 sample tagged" : `${count} samples tagged`;
  document.getElementById("export").disabled = document.getElementById("untag").disabled = !count;
}

function addOption(select, value, text) {
  const option = document.createElement("option");
  option.value = value;
  option.textContent = text;
  select.append(option);
}

function addTagChoices(card) {
  const select = card.querySelector(".tag");
  addOption(select, "keep", `keep: the ${ofPairs ? "caption" : "label"} is right`);
  addOption(select, "drop", "drop");
  const guess = card.dataset.predicted;
  if (relabels && guess && !JSON.parse(card.dataset.classes).includes(guess)) addOption(select, `relabel ${guess}`, `→ ${guess}`);
}

// As `csv_cell` in rhostream/plain_text.py, whose `from_csv_cell` reads it.
function csvCell(text) {
  const guarded = /^'*[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return `"${guarded.replaceAll('"', '""')}"`;
}

function cleanList() {
  const given = new Map(cards.map((card) => [card.dataset.key, JSON.parse(card.dataset.classes).join(", ")]));
  const rows = [...tags].sort(([one], [other]) => (one < other ? -1 : 1)).map(([key, tag]) =>
    [key, tag.action, tag.class ?? given.get(key) ?? "", "tagged in the report"].map(csvCell).join(","));
  return ["key,action,class,reason", ...rows, ""].join("\n");
}

function exportTags() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([cleanList()], { type: "text/csv" }));
  link.download = "clean.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  said.textContent = `Exported ${tags.size} tags as clean.csv`;
}

// --- A picture opened larger.

const larger = document.getElementById("larger");
let opened = null;

function open(card) {
  opened = card;
  const image = card.querySelector("img");
  const big = larger.querySelector("img") ?? document.createElement("img");
  larger.querySelector("dl").before(big);
  big.src = image.src;
  big.alt = image.alt;
  // Small pictures are enlarged by whole numbers, so that each pixel is seen.
  const times = Math.max(1, Math.floor(Math.min(512, window.innerWidth - 80) / Math.max(image.naturalWidth, 1)));
  big.width = image.naturalWidth * times;
  big.classList.toggle("pixels", times > 2);
  document.getElementById("larger-title").textContent = card.dataset.key;
  const facts = larger.querySelector("dl");
  facts.replaceChildren();
  for (const [name, value] of JSON.parse(card.dataset.facts)) {
    facts.append(Object.assign(document.createElement("dt"), { textContent: name }));
    facts.append(Object.assign(document.createElement("dd"), { textContent: value }));
  }
  const choice = document.getElementById("larger-tag");
  choice.replaceChildren(...[...card.querySelector(".tag").options].map((option) => option.cloneNode(true)));
  const there = new Set([...choice.options].map((option) => option.value));
  const own = JSON.parse(card.dataset.classes);
  for (const name of relabels ? classNames : []) {
    if (!own.includes(name) && !there.has(`relabel ${name}`)) addOption(choice, `relabel ${name}`, `→ ${name}`);
  }
  choice.value = valueOf(tags.get(card.dataset.key));
  if (!larger.open) larger.showModal();
}

function step(by) {
  const visible = cards.filter((card) => !card.hidden && card.querySelector("img"));
  const next = visible[visible.indexOf(opened) + by];
  if (next) open(next);
}

// --- Copying.

function textToCopy(button) {
  const key = button.closest("[data-key]")?.dataset.key;
  if (button.dataset.copy === "key") return key;
  if (button.dataset.copy === "block") return button.parentElement.querySelector("pre").textContent;
  const [before, after] = document.getElementById("sample-sql").textContent.split("?");
  return before + key.replaceAll("'", "''") + after;
}

async function copy(button) {
  const text = textToCopy(button);
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // No clipboard without a secure context; the older way needs a selection.
    const area = document.body.appendChild(document.createElement("textarea"));
    area.value = text;
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  said.textContent = `Copied: ${text.split("\n")[0]}`;
  button.classList.add("done");
  setTimeout(() => button.classList.remove("done"), 1200);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.classList.contains("copy")) copy(button);
  if (button?.classList.contains("open")) open(button.closest(".card"));
  if (button?.classList.contains("more")) {
    button.setAttribute("aria-expanded", String(button.getAttribute("aria-expanded") !== "true"));
    show();
  }
  if (button?.classList.contains("pick")) {
    bySearch.value = byReason.value = "";
    onlyTagged.checked = false;
    byClass.value = button.dataset.class;
    show();
    const title = document.getElementById("pictures-title");
    title.scrollIntoView();
    title.focus({ preventScroll: true });
  }
});

if (byClass) {
  for (const card of cards) {
    card.dataset.text = [...JSON.parse(card.dataset.facts).flat(), card.dataset.key, card.textContent].join(" ").toLowerCase();
    addTagChoices(card);
    card.querySelector(".tag").addEventListener("change", (event) => setTag(card.dataset.key, tagOf(event.target.value)));
  }
  for (const [key, tag] of stored()) tags.set(key, tag);
  showTags();
  bySearch.addEventListener("input", show);
  for (const filter of [byClass, byReason, onlyTagged]) filter.addEventListener("change", show);
  byClass.form.addEventListener("reset", () => setTimeout(show));
  byClass.form.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("export").addEventListener("click", exportTags);
  document.getElementById("untag").addEventListener("click", () => {
    if (!window.confirm(`Forget ${tags.size} tags?`)) return;
    tags.clear();
    store();
    showTags();
    show();
  });
  larger.addEventListener("close", () => opened?.querySelector(".open").focus());
  larger.addEventListener("click", (event) => event.target === larger && larger.close());
  larger.addEventListener("keydown", (event) => {
    if (event.target.tagName === "SELECT") return;
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  document.getElementById("before").addEventListener("click", () => step(-1));
  document.getElementById("next").addEventListener("click", () => step(1));
  document.getElementById("close").addEventListener("click", () => larger.close());
  document.getElementById("larger-tag").addEventListener("change", (event) => setTag(opened.dataset.key, tagOf(event.target.value)));
  show();
}
