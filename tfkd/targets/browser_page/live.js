// The live page: asks for the rows every two seconds, also after the computer could not be reached.
"use strict";

const EVERY_MS = 2000, LONGEST_MS = 20000;
const COLUMNS = ["number", "verdict", "accuracy", "median", "p90", "accelerator", "device"];
const count = document.getElementById("count"), body = document.getElementById("rows");

function text(element, content) {
  const one = document.createElement(element);
  one.textContent = content;
  return one;
}

function row(found) {
  const line = document.createElement("tr");
  line.dataset.state = found.state;
  for (const column of COLUMNS) {
    const cell = text("td", found[column]);
    if (column === "verdict" && found.note) cell.append(document.createElement("br"), text("small", found.note));
    line.append(cell);
  }
  return line;
}

async function update() {
  try {
    const rows = await (await fetch("rows.json", { signal: AbortSignal.timeout?.(LONGEST_MS) })).json();
    const text = rows.length ? `${rows.length} device${rows.length === 1 ? "" : "s"}.` : "No device yet.";
    if (count.textContent !== text) {
      count.textContent = text;
      body.replaceChildren(...rows.map(row));
    }
  } catch {
    count.textContent = "The computer cannot be reached. If it has ended, its report has all devices.";
  }
  setTimeout(update, EVERY_MS);
}

document.body.dataset.ready = "yes";
update();
