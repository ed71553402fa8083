// The page: strokes and pictures are read as they are made, by `read` of one script before this one,
// and what is read is shown by another, digits.js or classes.js. ABOUT says what the network takes.
// Lengths are fractions of the sheet's width.

const PEN = 0.034;
const RATIO = 3 / 4; // height of the sheet by its width
const TAP = 6; // pixels that a finger may move in a tap
const INK = "#16244f";

const root = document.querySelector(".reader");
const find = (name) => root.querySelector("." + name);
const [sheet, ink, boxes] = ["sheet", "ink", "boxes"].map(find);
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

// Return the least and the greatest coordinate of points along an axis.
function ends(points, axis) {
  const places = points.map((point) => point[axis]);
  return [Math.min, Math.max].map((end) => places.reduce((a, b) => end(a, b)));
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

// Return the reply for a picture, or for the drawing. A picture that is refused is read again when it
// is shown again: the server may be back.
async function question(image) {
  const reading = image ? (image.reading = image.reading || readPicture(image)) : readDrawing();
  if (image && image.wait) answer({ wait: image.wait }); // in place of another picture's reading
  const refused = `${image ? image.file.name : "The drawing"} cannot be read.`;
  const reply = await reading.catch(() => ({ refused })); // as where the browser has no memory
  if (image && reply.refused) image.reading = null;
  return reply;
}

async function readDrawing() {
  copyDrawing(copy);
  return read({ canvas: copy, strokes: strokes() });
}

async function readPicture(image) {
  const { file, page } = image;
  const progress = (share) => {
    const sent = `Sending ${file.name}: ${Math.round(100 * share)} %`;
    image.wait = share < 1 ? sent : `Reading ${file.name} …`;
    if (image === picture()) answer({ wait: image.wait });
  };
  progress(0);
  const reply = await read({ picture: file, page, progress });
  image.wait = "";
  if (reply.preview) await decode(image, reply.preview);
  if (reply.pages > 1 && page === 1) addPages(image, reply.pages);
  return reply;
}

// Insert the other pages of a file after its first.
function addPages(image, pages) {
  const step = done.find(({ pictures }) => pictures && pictures.includes(image));
  if (!step) return; // undone
  image.pages = pages;
  const others = Array.from({ length: pages - 1 }, (_, i) => ({ file: image.file, page: i + 2, pages }));
  const place = step.pictures.indexOf(image);
  step.pictures.splice(place + 1, 0, ...others);
  if (step.shown > place) step.shown += others.length; // the same picture as before
  showPager();
}

const IDLE = 120; // milliseconds without a move after which an unfinished stroke is read
let askedAt = 0; // in milliseconds
let underway = 0;
let asked = 0; // the newest state asked about
let answered = 0; // the newest state shown
let refusal = ""; // of the last file, while the sheet that it would have replaced stays
let pause = 0; // the timer of the pen

function change(request = askNow) {
  changes += 1;
  refusal = "";
  show();
  request();
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

// `present` of the script before this one shows a reply, and returns the message about it.
function answer(reply) {
  const { text = "", unsure = false, isFound = false } = present(reply);
  const message = find("message");
  const wait = reply && (reply.wait || reply.refused);
  message.textContent = refusal || wait || (reply ? text : EMPTY);
  message.classList.toggle("unsure", unsure);
  if (reply && reply.wait) find("pace").textContent = "";
  if (answered < changes) return;
  const took = Math.round(performance.now() - askedAt);
  find("pace").textContent = isFound ? `Read in ${took} ms.` : "";
  root.dataset.took = took;
  const refused = refusal || (reply && reply.refused);
  root.dataset.state = refused ? "refused" : reply ? "read" : "empty";
}

// Never 0 or 100.
function percentage(share) {
  if (share < 0.005) return "<1";
  return share >= 0.995 ? ">99" : `${Math.round(100 * share)}`;
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
  if (!ABOUT.draws || picture() || drawing !== null || event.button !== 0) return;
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
  if (!isTap(last())) change(askSoon);
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
  if (isEmpty() || drawing !== null) return;
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

new ResizeObserver(show).observe(sheet);
find("upload").hidden = !PICTURES;
document.title = TEXTS.title;
root.classList.toggle("still", !ABOUT.draws);
for (const name of ["title", "about", "hint"]) find(name).textContent = TEXTS[name];
show();
answer(null);
root.dataset.ready = "yes";
