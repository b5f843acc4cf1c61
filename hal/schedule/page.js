"use strict";

// A step that is pointed at, in the timeline, the graph or the table, is shown in all three, with what it waits for.
const steps = new Map();
for (const part of document.querySelectorAll("[data-step]")) {
  const number = part.dataset.step;
  if (!steps.has(number)) steps.set(number, []);
  steps.get(number).push(part);
}
let fixed = null;
function mark(number) {
  for (const part of document.querySelectorAll(".chosen, .faint")) part.classList.remove("chosen", "faint");
  if (number === null) return;
  const row = (steps.get(number) || []).find((part) => part.dataset.after !== undefined);
  const near = new Set([number, ...(row ? row.dataset.after.split(" ") : [])]);
  for (const part of document.querySelectorAll("rect.step")) part.classList.toggle("faint", !near.has(part.dataset.step));
  for (const part of steps.get(number) || []) part.classList.add("chosen");
}
document.addEventListener("mouseover", (event) => {
  const part = event.target.closest ? event.target.closest("[data-step]") : null;
  if (part && part.matches("rect") && part.dataset.says) {
    tip.textContent = part.dataset.says;
    tip.hidden = false;
    const at = part.getBoundingClientRect();
    tip.style.left = `${Math.max(8, Math.min(at.left, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${at.bottom + 8 + tip.offsetHeight < innerHeight ? at.bottom + 8 : Math.max(8, at.top - tip.offsetHeight - 8)}px`;
  }
  if (fixed === null) mark(part ? part.dataset.step : null);
});
document.addEventListener("click", (event) => {
  const part = event.target.closest("[data-step]");
  fixed = part && part.dataset.step !== fixed ? part.dataset.step : null;
  mark(fixed);
  if (fixed !== null && part.matches("rect")) {
    const row = steps.get(fixed).find((other) => other.matches("tr"));
    if (row) row.scrollIntoView({ block: "nearest" });
  }
});

// The timeline grows with the slider: only its lengths change, never the size of the letters.
const zoom = document.getElementById("zoom");
if (zoom) {
  const picture = document.querySelector("#timeline svg");
  zoom.addEventListener("input", () => {
    const by = 2 ** parseFloat(zoom.value);
    for (const part of picture.querySelectorAll("[data-x]")) {
      part.setAttribute("x", parseFloat(picture.dataset.left) + parseFloat(part.dataset.x) * by);
      if (part.dataset.w) part.setAttribute("width", Math.max(1, parseFloat(part.dataset.w) * by));
      if (part.dataset.room) part.style.display = parseFloat(part.dataset.room) * by > part.textContent.length * 7 ? "" : "none";
    }
    picture.setAttribute("width", parseFloat(picture.dataset.left) + parseFloat(picture.dataset.w) * by + 60);
  });
  zoom.dispatchEvent(new Event("input"));
}
