"use strict";

// A click on a column's title sorts by it; a second click turns the order round. Empty cells stay last.
for (const table of document.querySelectorAll("table.sorts")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const squares = table.id === "ops" && column > 1;
    const first = head.classList.contains("number") || squares ? "descending" : "ascending";
    const second = first === "ascending" ? "descending" : "ascending";
    const order = head.getAttribute("aria-sort") === first ? second : first;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const key = (row) => {
      const cell = row.cells[column];
      return cell.dataset.v ? parseFloat(cell.dataset.v) : cell.textContent;
    };
    const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
    rows.sort(([a], [b]) => {
      if (a === "" || b === "") return (a === "") - (b === "");
      return sign * (typeof a === "number" ? (a > b) - (a < b) : a.localeCompare(b));
    });
    table.tBodies[0].append(...rows.map(([, row]) => row));
  }));
}

// The matrix: by name, by kind, and by how any square of a row ended.
const filter = document.getElementById("filter");
const table = document.getElementById("ops");
function choose() {
  const text = filter.elements.op.value.trim().toLowerCase();
  const kind = filter.elements.kind.value;
  const wanted = new Set([...filter.querySelectorAll("input[value]:checked")].filter((i) => !i.name).map((i) => i.value));
  let shown = 0;
  for (const row of table.tBodies[0].rows) {
    let lit = wanted.size === 0;
    for (const square of row.querySelectorAll(".square")) {
      const fits = square.dataset.s.split(" ").some((status) => wanted.has(status));
      square.classList.toggle("lit", fits);
      lit = lit || fits;
    }
    row.hidden = !lit || !row.dataset.op.toLowerCase().includes(text) || (kind !== "" && row.dataset.kind !== kind);
    shown += !row.hidden;
  }
  table.classList.toggle("dim", wanted.size > 0);
  table.classList.toggle("shares", filter.elements.shares.checked);
  filter.elements.shown.value = `${shown} of ${table.tBodies[0].rows.length}`;
}
if (filter) {
  filter.addEventListener("input", choose);
  choose();
}

for (const input of document.querySelectorAll("input[data-filters]")) {
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/);
    for (const row of document.getElementById(input.dataset.filters).tBodies[0].rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  });
}

// What a title says, at once and in the page's own look. A click on a square copies its last line, which runs it again.
const tip = document.getElementById("tip");
function show(target) {
  if (target.title) {
    target.dataset.says = target.title;
    target.setAttribute("aria-label", target.title);
    target.removeAttribute("title");
  }
  tip.textContent = target.dataset.says;
  tip.hidden = false;
  const at = target.getBoundingClientRect();
  const left = Math.max(8, Math.min(at.left, innerWidth - tip.offsetWidth - 8));
  const below = at.bottom + 6 + tip.offsetHeight < innerHeight;
  tip.style.left = `${left}px`;
  tip.style.top = `${below ? at.bottom + 6 : Math.max(8, at.top - tip.offsetHeight - 6)}px`;
}
function hide() {
  tip.hidden = true;
}
const square = (event) => (event.target.closest ? event.target.closest(".matrix .square") : null);
for (const kind of ["mouseover", "focusin"]) {
  document.addEventListener(kind, (event) => (square(event) ? show(square(event)) : hide()));
}
document.addEventListener("scroll", hide, true);
document.addEventListener("keydown", (event) => event.key === "Escape" && hide());

function copy(text, done) {
  if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, () => {});
}
document.addEventListener("click", (event) => {
  const cell = square(event);
  if (cell) copy((cell.dataset.says || cell.title).split("\n").pop(), () => (tip.textContent = cell.dataset.says + "\n(copied)"));
  const button = event.target.closest(".copy");
  if (button) copy(button.previousElementSibling.textContent, () => (button.textContent = "copied"));
});
