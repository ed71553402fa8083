// The page: strokes and pictures are read as they are made, by `read` of the script before this one.
// Lengths are shares of the sheet's width.

const PEN = 0.034;
const RATIO = 3 / 4; // height of the sheet by its width
const SENT = 400; // width in pixels of the drawing that is read
const TAP = 6; // pixels that a finger may move in a tap
const INK = "#16244f";

const root = document.querySelector(".reader");
const find = (name) => root.querySelector("." + name);
const [sheet, ink, boxes, seen, bars] = ["sheet", "ink", "boxes", "seen", "bars"].map(find);
const file = root.querySelector("input");

// what is on the sheet

// Everything done so far, so that undo takes back anything: a stroke {points}, a picture
// {picture: its file, preview, ratio} or a new sheet {clear}.
let done = [];
let changes = 0; // counts them, to tell an answer that is late

const last = () => done[done.length - 1];
const picture = () => (last() && last().picture ? last() : null);

function strokes() {
  let first = done.length;
  while (first > 0 && done[first - 1].points) first -= 1;
  return done.slice(first);
}

const pages = () => done.filter((step) => !step.points).length;
const isEmpty = () => !picture() && strokes().length === 0;

// Where the picture lies on the sheet: [left, top, width, height] in shares of width and height.
function frame() {
  const ratio = picture() ? picture().ratio : RATIO;
  if (!ratio) return [0, 0, 1, 1];
  const width = Math.min(1, RATIO / ratio);
  const height = Math.min(1, ratio / RATIO);
  return [(1 - width) / 2, (1 - height) / 2, width, height];
}

function paint(canvas, ground) {
  const pen = canvas.getContext("2d");
  const size = canvas.width;
  pen.setTransform(1, 0, 0, 1, 0, 0);
  pen.clearRect(0, 0, canvas.width, canvas.height);
  if (ground) {
    pen.fillStyle = ground;
    pen.fillRect(0, 0, canvas.width, canvas.height);
  }
  pen.setTransform(size, 0, 0, size, 0, 0);
  pen.strokeStyle = INK;
  pen.lineWidth = PEN;
  for (const { points } of strokes()) draw(pen, points);
  pen.setTransform(1, 0, 0, 1, 0, 0);
}

// Draws one stroke in the pen's own colour, width and scale.
function draw(pen, points) {
  pen.lineCap = pen.lineJoin = "round";
  pen.beginPath();
  pen.moveTo(...points[0]);
  // a curve through the middles of the points' distances has no corners
  for (let i = 1; i < points.length; i += 1) {
    const [x, y] = points[i];
    const [u, v] = points[i + 1] || points[i];
    pen.quadraticCurveTo(x, y, (x + u) / 2, (y + v) / 2);
  }
  if (points.length === 1) pen.lineTo(...points[0]);
  pen.stroke();
}

function show() {
  const width = Math.round(sheet.clientWidth * (window.devicePixelRatio || 1));
  if (ink.width !== width || ink.height !== Math.round(width * RATIO)) {
    ink.width = width;
    ink.height = Math.round(width * RATIO);
  }
  paint(ink, null);
  if (picture() && picture().preview) {
    const [left, top, wide, high] = frame();
    const pen = ink.getContext("2d");
    pen.drawImage(
      picture().preview,
      left * ink.width,
      top * ink.height,
      wide * ink.width,
      high * ink.height,
    );
  }
  find("undo").disabled = done.length === 0;
  find("clear").disabled = isEmpty();
  find("hint").hidden = !isEmpty();
  sheet.classList.toggle("picture", Boolean(picture()));
}

// reading

const copy = document.createElement("canvas");
copy.width = SENT;
copy.height = SENT * RATIO;

function question() {
  if (picture()) return read({ picture: picture().picture });
  paint(copy, "#fff");
  return read({ canvas: copy, strokes: strokes() });
}

let askedAt = 0; // in milliseconds
let underway = 0;
let asked = 0; // the newest state asked about
let answered = 0; // the newest state shown

function change() {
  changes += 1;
  show();
  askNow();
}

// Within a stroke, what is drawn is read whenever no other reading is underway.
function grow() {
  changes += 1;
  show();
  if (underway === 0) askNow();
}

function askNow() {
  if (asked === changes) return;
  askedAt = performance.now();
  ask();
}

async function ask() {
  const state = (asked = changes);
  const page = pages();
  const image = picture();
  if (isEmpty()) {
    answered = state;
    answer(null);
    return;
  }
  root.dataset.state = "reading";
  underway += 1;
  const reply = await question();
  if (reply.preview) await decode(image, reply.preview);
  underway -= 1;
  // it may be late for a stroke that has grown meanwhile, but not for another sheet
  if (state > answered && page === pages() && !isEmpty()) {
    answered = state;
    if (reply.refused && image) done.pop(); // what was on the sheet before it stays
    show();
    answer(reply);
  }
  if (underway === 0) askNow();
}

async function decode(image, url) {
  const preview = new Image();
  preview.src = url;
  await preview.decode();
  image.preview = preview;
  image.ratio = preview.height / preview.width;
  show();
}

// the answer

let digits = [];

for (let digit = 0; digit < 10; digit += 1) {
  const bar = document.createElement("div");
  bar.className = "bar";
  bar.setAttribute("role", "listitem");
  bar.innerHTML = `<small></small><div class="trough"><div class="level"></div></div><b>${digit}</b>`;
  bars.append(bar);
}

function answer(reply) {
  digits = reply ? reply.digits : [];
  const unsure = digits.filter((digit) => digit.digit === null);
  find("reading").textContent = reply ? reply.text : "";
  find("reading").classList.toggle("long", Boolean(reply) && reply.text.length > 7);
  const message = find("message");
  message.textContent = message_of(reply, unsure);
  message.classList.toggle("unsure", unsure.length > 0);
  tiles();
  choose(digits.length - 1);
  if (answered < changes) return;
  const took = Math.round(performance.now() - askedAt);
  find("pace").textContent = digits.length ? `Read in ${took} ms.` : "";
  root.dataset.took = took;
  root.dataset.state = !reply ? "empty" : reply.refused ? "refused" : "read";
}

function message_of(reply, unsure) {
  if (!reply) return "The sheet is empty: draw a digit with mouse or finger.";
  if (reply.refused) return reply.refused;
  if (digits.length === 0) return "No digit found yet.";
  if (!unsure.length) return digits.length === 1 ? "" : `${digits.length} digits`;
  const doubts = unsure.filter(({ sign }) => sign === "?").length;
  const others = unsure.length - doubts;
  const guess = doubts && digits.length === 1 ? `Perhaps a ${digits[0].best}?` : "";
  return [
    doubts === 1 ? "Unsure of one digit." : doubts ? `Unsure of ${doubts} digits.` : "",
    others === 1 ? "One sign is no digit." : others ? `${others} signs are no digits.` : "",
    guess,
  ].join(" ");
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
    const sign = digit.sign === "?" ? `${digit.best}?` : digit.sign;
    const label = `${sign} · ${percentage(digit.probabilities[digit.best])}%`;
    tile.setAttribute("aria-label", `Read as ${label.replace(" ·", ",")}`);
    tile.append(canvas, digit.sign === "·" ? "no digit" : label);
    tile.addEventListener("click", () => choose(index));
    seen.append(tile);

    const box = document.createElement("i");
    const [x0, y0, x1, y1] = digit.box;
    box.classList.toggle("unsure", digit.digit === null);
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

// Shows the probabilities of one of the digits.
function choose(index) {
  const chosen = digits[index];
  [...seen.querySelectorAll("button")].forEach((tile, i) => {
    tile.setAttribute("aria-pressed", String(i === index));
    if (i === index) seen.scrollLeft = tile.offsetLeft - (seen.clientWidth - tile.offsetWidth) / 2;
  });
  overflow();
  [...boxes.children].forEach((box, i) => box.classList.toggle("chosen", i === index));
  find("which").textContent = digits.length > 1 ? `(${index + 1} of ${digits.length})` : "";
  [...bars.children].forEach((bar, digit) => {
    const share = chosen ? chosen.probabilities[digit] : 0;
    bar.classList.toggle("best", Boolean(chosen) && digit === chosen.best);
    bar.querySelector(".level").style.height = `${100 * share}%`;
    bar.querySelector("small").textContent = chosen ? percentage(share) : "";
    bar.title = chosen ? `${digit}: ${(100 * share).toFixed(2)}%` : "";
  });
}

// Nothing is held for certain or for impossible.
function percentage(share) {
  if (share < 0.005) return "<1";
  return share >= 0.995 ? ">99" : `${Math.round(100 * share)}`;
}

// Says that the strip holds more than it shows, and fades it out on the sides where it does.
function overflow() {
  const hidden = seen.scrollWidth - seen.clientWidth;
  find("more").textContent = hidden > 1 ? `(scroll: ${digits.length})` : "";
  seen.classList.toggle("before", seen.scrollLeft > 1);
  seen.classList.toggle("after", seen.scrollLeft < hidden - 1);
}

// mouse, finger, pen

let drawing = null; // the pointer's id

function place(event) {
  const area = ink.getBoundingClientRect();
  return [(event.clientX - area.left) / area.width, (event.clientY - area.top) / area.width];
}

// The index of the digit whose box is there, or -1.
function digitAt(event) {
  return [...boxes.children].findIndex((box) => {
    const { left, right, top, bottom } = box.getBoundingClientRect();
    const { clientX: x, clientY: y } = event;
    return left <= x && x <= right && top <= y && y <= bottom;
  });
}

function isTap({ points }) {
  const reach = TAP / ink.clientWidth;
  return points.every(([x, y]) => Math.hypot(x - points[0][0], y - points[0][1]) <= reach);
}

ink.addEventListener("pointerdown", (event) => {
  // a picture is scrolled and tapped, never drawn on
  if (picture() || drawing !== null || event.button !== 0) return;
  event.preventDefault();
  drawing = event.pointerId;
  ink.setPointerCapture(drawing);
  done.push({ points: [place(event)] });
  show();
});

ink.addEventListener("pointermove", (event) => {
  if (drawing === null) ink.classList.toggle("choosing", digitAt(event) >= 0);
  if (event.pointerId !== drawing) return;
  const events = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
  last().points.push(...(events.length ? events : [event]).map(place));
  if (!isTap(last())) grow();
});

ink.addEventListener("pointerup", (event) => {
  if (event.pointerId !== drawing) return;
  drawing = null;
  if (!isTap(last())) {
    askNow();
  } else if (digitAt(event) < 0) {
    change(); // a dot
  } else {
    done.pop();
    show();
    choose(digitAt(event));
  }
});

// The browser scrolls or zooms with what began as a stroke.
ink.addEventListener("pointercancel", (event) => {
  if (event.pointerId !== drawing) return;
  drawing = null;
  done.pop();
  change();
});

ink.addEventListener("click", (event) => {
  if (picture() && digitAt(event) >= 0) choose(digitAt(event));
});

// buttons, files

function undo() {
  if (drawing !== null || done.length === 0) return;
  done.pop();
  change();
}

find("undo").addEventListener("click", undo);
find("clear").addEventListener("click", () => {
  if (isEmpty()) return;
  done.push({ clear: true });
  change();
});

function take(chosen) {
  if (!chosen || !PICTURES || drawing !== null) return;
  done.push({ picture: chosen });
  change();
}

file.addEventListener("change", () => {
  take(file.files[0]);
  file.value = ""; // so that the same file can be chosen again
});

// wherever it is dropped: a browser leaves the page for a file that nobody takes
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    sheet.classList.toggle("over", PICTURES && (name === "dragenter" || name === "dragover"));
    if (name === "drop") take(event.dataTransfer.files[0]);
  });
}

document.addEventListener("paste", (event) => take(event.clipboardData.files[0]));
document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && !event.shiftKey && event.key.toLowerCase() === "z") {
    event.preventDefault();
    undo();
  }
});

seen.addEventListener("scroll", overflow);
new ResizeObserver(overflow).observe(seen);
new ResizeObserver(show).observe(sheet);
for (const part of root.querySelectorAll(PICTURES ? ".drawings" : ".pictures")) part.hidden = true;
show();
answer(null);
root.dataset.ready = "yes";
