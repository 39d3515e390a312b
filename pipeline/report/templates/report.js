"use strict";

const byClass = document.getElementById("by-class");
const byReason = document.getElementById("by-reason");
const cards = [...document.querySelectorAll(".card")];

// Without a filter the first pictures of each gallery, or all on demand; with one all that it fits.
function show() {
  if (!byClass) return;
  const filtered = byClass.value || byReason.value;
  for (const gallery of document.querySelectorAll(".gallery")) {
    const more = gallery.querySelector(".more");
    const all = filtered || more.getAttribute("aria-expanded") === "true";
    let extras = 0;
    for (const card of gallery.querySelectorAll(".card")) {
      const fits = (!byClass.value || JSON.parse(card.dataset.classes).includes(byClass.value)) &&
        (!byReason.value || card.dataset.reason === byReason.value);
      const extra = "extra" in card.dataset;
      card.hidden = !fits || (!all && extra);
      extras += extra;
    }
    more.hidden = filtered || !extras;
    more.textContent = all ? "Show fewer" : `Show ${extras} more`;
    gallery.querySelector(".none").hidden = gallery.querySelector(".card:not([hidden])") !== null;
  }
  const count = cards.filter((card) => !card.hidden).length;
  document.getElementById("shown").textContent = `${count} of ${cards.length} pictures`;
}

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
  document.getElementById("said").textContent = `Copied: ${text.split("\n")[0]}`;
  button.classList.add("done");
  setTimeout(() => button.classList.remove("done"), 1200);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.classList.contains("copy")) copy(button);
  if (button?.classList.contains("more")) {
    button.setAttribute("aria-expanded", String(button.getAttribute("aria-expanded") !== "true"));
    show();
  }
  if (button?.classList.contains("pick")) {
    byClass.value = button.dataset.class;
    byReason.value = "";
    show();
    const title = document.getElementById("pictures-title");
    title.scrollIntoView();
    title.focus({ preventScroll: true });
  }
});

if (byClass) {
  byClass.addEventListener("change", show);
  byReason.addEventListener("change", show);
  byClass.form.addEventListener("reset", () => setTimeout(show));
  byClass.form.addEventListener("submit", (event) => event.preventDefault());
  show();
}
