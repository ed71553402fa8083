// What the page shows of a network that reads digits. The scripts after it use `present`.

const TEXTS = {
  title: "Draw a digit",
  about: PICTURES
    ? "A small network reads it as you draw. Try several in a row, or photos of your writing."
    : "A small network in this file reads it as you draw: digits and signs such as + and /, in rows.",
  hint: "Write here",
};
const EMPTY = "The sheet is empty: draw a digit with mouse or finger.";
const SENT = 400; // width in pixels of the drawing that is read

let digits = [];
const [seen, bars] = ["seen", "bars"].map((name) => document.querySelector(`.reader .${name}`));

for (let digit = 0; digit < 10; digit += 1) {
  const bar = document.createElement("div");
  bar.className = "bar";
  bar.setAttribute("role", "listitem");
  bar.innerHTML = `<small></small><div class="trough"><div class="level"></div></div><b>${digit}</b>`;
  bars.append(bar);
}

// Paint the drawing as it is read.
function copyDrawing(canvas) {
  canvas.width = SENT;
  canvas.height = SENT * RATIO;
  paint(canvas, "#fff");
}

// Show a reply, or none, and return {text: about it, unsure, isFound}.
function present(reply) {
  digits = (reply && reply.digits) || [];
  // neither known signs nor empty cells
  const unsure = digits.filter(({ sign }) => sign === "?" || sign === "·");
  showText((reply && reply.text) || "");
  tiles();
  choose(digits.length - 1);
  return { text: messageOf(unsure), unsure: unsure.length > 0, isFound: digits.length > 0 };
}

// Each row of writing is a block, so that a wrapped row is recognizable.
function showText(text) {
  const rows = text ? text.split("\n") : [];
  const reading = find("reading");
  reading.replaceChildren();
  rows.forEach((row, i) => {
    const line = document.createElement("span");
    line.textContent = row;
    if (i) reading.append("\n");
    reading.append(line);
  });
  reading.classList.toggle("long", text.length > 7 || rows.length > 2);
  reading.tabIndex = reading.scrollHeight > reading.clientHeight ? 0 : -1; // scrolled by keys
}

function messageOf(unsure) {
  if (digits.length === 0) return "No digit found yet.";
  const read = digits.filter(({ digit }) => digit !== null).length;
  if (!unsure.length) return read > 1 ? `${read} digits` : "";
  const { best, turned } = digits.find((each) => each.turned) || digits[0];
  if (turned) return `A ${best}, if the picture is turned by ${turned}° clockwise.`;
  const doubts = unsure.filter(({ sign }) => sign === "?").length;
  const others = unsure.length - doubts;
  const guess = doubts && digits.length === 1 ? `Perhaps a ${best}?` : "";
  return [
    doubts === 1 ? "Unsure of one digit." : doubts ? `Unsure of ${doubts} digits.` : "",
    others === 1 ? "One sign is no digit." : others ? `${others} signs are no digits.` : "",
    guess,
  ].filter(Boolean).join(" ");
}

// The label of a digit's tile.
function labelOf({ sign, best, confidence, turned }) {
  if (sign === "·") return "no digit";
  if (sign === " ") return "empty";
  if (turned) return `${best}? ↻ ${turned}°`;
  if (sign !== "?" && Number.isNaN(Number(sign))) return sign;
  return `${sign === "?" ? `${best}?` : sign} · ${percentage(confidence)}%`;
}

function tiles() {
  seen.replaceChildren();
  boxes.replaceChildren();
  const [left, top, wide, high] = frame();
  digits.forEach((digit, index) => {
    const tile = document.createElement("button");
    tile.type = "button";
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = 28;
    const pixels = new ImageData(28, 28);
    Uint8Array.from(atob(digit.image), (c) => c.charCodeAt(0)).forEach((value, i) => {
      pixels.data.set([value, value, value, 255], 4 * i);
    });
    canvas.getContext("2d").putImageData(pixels, 0, 0);
    tile.setAttribute("aria-label", `Read as ${labelOf(digit).replace(" ·", ",")}`);
    tile.append(canvas, labelOf(digit));
    tile.addEventListener("click", () => choose(index));
    seen.append(tile);

    const box = document.createElement("i");
    const [x0, y0, x1, y1] = digit.box;
    box.classList.toggle("unsure", digit.sign === "?" || digit.sign === "·");
    Object.assign(box.style, {
      left: `calc(${100 * (left + x0 * wide)}% - 6px)`,
      top: `calc(${100 * (top + y0 * high)}% - 6px)`,
      width: `calc(${100 * (x1 - x0) * wide}% + 12px)`,
      height: `calc(${100 * (y1 - y0) * high}% + 12px)`,
    });
    boxes.append(box);
  });
  if (digits.length === 0) {
    const none = document.createElement("div");
    none.className = "none";
    seen.append(none);
  }
}

// Show the probabilities of one of the digits.
function choose(index) {
  const chosen = digits[index];
  [...seen.querySelectorAll("button")].forEach((tile, i) => {
    tile.setAttribute("aria-pressed", String(i === index));
    if (i === index) seen.scrollLeft = tile.offsetLeft - (seen.clientWidth - tile.offsetWidth) / 2;
  });
  overflow();
  [...boxes.children].forEach((box, i) => box.classList.toggle("chosen", i === index));
  const turned = chosen && chosen.turned ? `if it is turned by ${chosen.turned}°` : "";
  find("which").textContent = digits.length > 1 ? `(${index + 1} of ${digits.length})` : turned;
  [...bars.children].forEach((bar, digit) => {
    const share = chosen ? chosen.probabilities[digit] : 0;
    bar.classList.toggle("best", Boolean(chosen) && digit === chosen.best);
    bar.querySelector(".level").style.height = `${100 * share}%`;
    bar.querySelector("small").textContent = chosen ? percentage(share) : "";
    bar.title = chosen ? `${digit}: ${(100 * share).toFixed(2)}%` : "";
  });
}

// Indicate that the strip can be scrolled, and fade it out on the sides where it continues.
function overflow() {
  const hidden = seen.scrollWidth - seen.clientWidth;
  find("more").textContent = hidden > 1 ? `(scroll: ${digits.length})` : "";
  seen.classList.toggle("before", seen.scrollLeft > 1);
  seen.classList.toggle("after", seen.scrollLeft < hidden - 1);
}

seen.addEventListener("scroll", overflow);
new ResizeObserver(overflow).observe(seen);
