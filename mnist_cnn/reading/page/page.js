// The page: strokes and pictures are read as they are made, by `read` of the script before this one.
// Lengths are fractions of the sheet's width.

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

// Everything done so far, so that undo takes back anything: a stroke {points}, pictures {pictures,
// shown: the index of the one on the sheet} or a new sheet {clear}. A picture is {file, page, pages:
// of the file, reading: the promise of its reply, preview, ratio}.
let done = [];
let changes = 0; // their number, to recognize a late answer

const last = () => done[done.length - 1];
const picture = () => (last() && last().pictures ? last().pictures[last().shown] : null);

function strokes() {
  let first = done.length;
  while (first > 0 && done[first - 1].points) first -= 1;
  return done.slice(first);
}

const pages = () => done.filter((step) => !step.points).length;
const isEmpty = () => !picture() && strokes().length === 0;

// The picture's place on the sheet: [left, top, width, height] as fractions of width and height.
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

// Draw one stroke in the pen's own colour, width and scale.
function draw(pen, points) {
  pen.lineCap = pen.lineJoin = "round";
  pen.beginPath();
  pen.moveTo(...points[0]);
  // a curve through the midpoints between the points has no corners
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
  showPager();
}

function showPager() {
  const { pictures = [], shown } = last() || {};
  find("pager").hidden = pictures.length < 2;
  if (pictures.length < 2) return;
  const { file, page, pages } = pictures[shown];
  const name = pages > 1 ? `${file.name}, page ${page} of ${pages}` : file.name;
  find("place").textContent = `${shown + 1} of ${pictures.length}: ${name}`;
  find("previous").disabled = shown === 0;
  find("next").disabled = shown === pictures.length - 1;
}

// reading

const copy = document.createElement("canvas");
copy.width = SENT;
copy.height = SENT * RATIO;

function question(image) {
  if (image) return (image.reading = image.reading || readPicture(image));
  paint(copy, "#fff");
  return read({ canvas: copy, strokes: strokes() });
}

async function readPicture(image) {
  const { file, page } = image;
  const progress = (share) => {
    const sent = `Sending ${file.name}: ${Math.round(100 * share)} %`;
    const wait = share < 1 ? sent : `Reading ${file.name} …`;
    if (image === picture()) answer({ text: "", digits: [], wait });
  };
  progress(0);
  const reply = await read({ picture: file, page, progress });
  if (reply.preview) await decode(image, reply.preview);
  if (reply.pages > 1 && page === 1) addPages(image, reply.pages);
  return reply;
}

// Insert the other pages of a file after its first.
function addPages(image, pages) {
  const { pictures } = done.find((step) => step.pictures && step.pictures.includes(image)) || {};
  if (!pictures) return; // undone
  image.pages = pages;
  const others = Array.from({ length: pages - 1 }, (_, i) => ({ file: image.file, page: i + 2, pages }));
  pictures.splice(pictures.indexOf(image) + 1, 0, ...others);
}

const IDLE = 120; // milliseconds without a move after which an unfinished stroke is read
let askedAt = 0; // in milliseconds
let underway = 0;
let asked = 0; // the newest state asked about
let answered = 0; // the newest state shown
let refusal = ""; // of the last file, while the sheet that it would have replaced stays
let pause = 0; // the timer of the pen

function change() {
  changes += 1;
  refusal = "";
  show();
  askNow();
}

function grow() {
  changes += 1;
  refusal = "";
  show();
  askSoon();
}

// When the pen is idle.
function askSoon() {
  clearTimeout(pause);
  pause = setTimeout(() => underway === 0 && askNow(), IDLE);
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
  const reply = await question(image);
  underway -= 1;
  // show a late answer if a stroke has grown meanwhile, but not on another sheet
  if (reply && state > answered && page === pages() && image === picture() && !isEmpty()) {
    if (reply.refused && image && last().pictures.length === 1) {
      done.pop(); // the previous sheet stays, with its reading
      change();
      refusal = reply.refused;
      if (isEmpty()) answer(null);
      return;
    }
    answered = state;
    show();
    answer(reply);
  }
  if (underway === 0) askSoon();
}

async function decode(image, url) {
  const preview = new Image();
  preview.src = url;
  await preview.decode();
  image.preview = preview;
  image.ratio = preview.height / preview.width;
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
  // neither known signs nor empty cells
  const unsure = digits.filter(({ sign }) => sign === "?" || sign === "·");
  showText(reply ? reply.text : "");
  const message = find("message");
  message.textContent = refusal || messageOf(reply, unsure);
  message.classList.toggle("unsure", unsure.length > 0);
  tiles();
  choose(digits.length - 1);
  if (reply && reply.wait) find("pace").textContent = "";
  if (answered < changes) return;
  const took = Math.round(performance.now() - askedAt);
  find("pace").textContent = digits.length ? `Read in ${took} ms.` : "";
  root.dataset.took = took;
  const refused = refusal || (reply && reply.refused);
  root.dataset.state = refused ? "refused" : reply ? "read" : "empty";
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

function messageOf(reply, unsure) {
  if (!reply) return "The sheet is empty: draw a digit with mouse or finger.";
  if (reply.wait || reply.refused) return reply.wait || reply.refused;
  if (digits.length === 0) return "No digit found yet.";
  const read = digits.filter(({ digit }) => digit !== null).length;
  if (!unsure.length) return read > 1 ? `${read} digits` : "";
  const { best, turned } = digits[0];
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

// Never 0 or 100.
function percentage(share) {
  if (share < 0.005) return "<1";
  return share >= 0.995 ? ">99" : `${Math.round(100 * share)}`;
}

// Indicate that the strip can be scrolled, and fade it out on the sides where it continues.
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

// The index of the digit whose box is at the pointer, or -1.
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

// The browser takes over a stroke to scroll or zoom.
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

function turnTo(step) {
  last().shown += step;
  change();
}

find("previous").addEventListener("click", () => turnTo(-1));
find("next").addEventListener("click", () => turnTo(1));

function take(files) {
  if (!files.length || !PICTURES || drawing !== null) return;
  done.push({ pictures: [...files].map((file) => ({ file, page: 1, pages: 1 })), shown: 0 });
  change();
}

file.addEventListener("change", () => {
  take(file.files);
  file.value = ""; // so that the same file can be chosen again
});

// anywhere on the page: a browser would open a dropped file that is not handled
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    sheet.classList.toggle("over", PICTURES && (name === "dragenter" || name === "dragover"));
    if (name === "drop") take(event.dataTransfer.files);
  });
}

document.addEventListener("paste", (event) => take(event.clipboardData.files));
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
