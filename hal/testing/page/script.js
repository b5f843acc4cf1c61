// Find an op, show only rows with some outcome, and sort a table by a column.
const find = document.getElementById("find");
const buttons = [...document.querySelectorAll("button[data-status]")];
function filter() {
  const words = (find.value || "").toLowerCase();
  const wanted = buttons.filter((b) => b.getAttribute("aria-pressed") === "true").map((b) => b.dataset.status);
  for (const body of document.querySelectorAll(".matrix tbody")) {
    let shown = 0;
    for (const row of body.querySelectorAll("tr[data-op]")) {
      const has = row.dataset.has.split(" ");
      const fits = row.dataset.op.includes(words) && (!wanted.length || wanted.some((s) => has.includes(s)));
      row.hidden = !fits;
      shown += fits;
    }
    body.hidden = !shown;
  }
}
if (find) find.addEventListener("input", filter);
for (const button of buttons) {
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("click", () => {
    button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
    filter();
  });
}
for (const title of document.querySelectorAll(".sorted thead th")) {
  title.addEventListener("click", () => {
    const column = title.cellIndex, body = title.closest("table").tBodies[0];
    const down = title.dataset.down !== "true";
    title.dataset.down = String(down);
    const value = (row) => {
      const cell = row.cells[column], given = cell.dataset.value ?? cell.textContent;
      const number = Number(given);
      return given === "inf" ? Infinity : given.trim() === "" || Number.isNaN(number) ? given : number;
    };
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      const order = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
      return down ? -order : order;
    });
    body.append(...rows);
  });
}
