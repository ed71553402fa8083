// What the page shows of a network that classifies pictures. The scripts after it use `present`.

const MOST = 8; // class names that are listed
const TEXTS = {
  title: "What is it?",
  about: `A small network finds the likeliest ${ABOUT.classes.length ? `of ${listed(ABOUT.classes)}` : "class"}.`,
  hint: ABOUT.draws ? "Drop a picture here, or draw" : "Drop a picture here",
};
const EMPTY = `Drop a picture on the page, paste or choose one${ABOUT.draws ? ", or draw" : ""}.`;
const SIDE = 280; // pixels of a drawing that is read, ten times as many as MNIST's
const LONGEST = 200; // of them the drawing's longer side, as in MNIST
const STROKE = 24;
const [GROUND, LINE] = ABOUT.onLight ? ["#fff", "#000"] : ["#000", "#fff"]; // as in training

const [seen, bars] = ["seen", "bars"].map((name) => document.querySelector(`.reader .${name}`));
document.querySelector(".reader").classList.add("classifier");
document.querySelector(".reader .likely").textContent = "How likely each class is";
document.querySelector(".reader .writing").setAttribute("aria-label", "Your picture");
if (!ABOUT.draws) document.querySelector(".reader .ink").setAttribute("aria-label", "Picture");
seen.setAttribute("aria-label", "Image that the network takes");

function listed(names) {
  const rest = names.length - MOST;
  const parts = rest > 1 ? [...names.slice(0, MOST), `${rest} more`] : names;
  return [parts.slice(0, -1).join(", "), ...parts.slice(-1)].filter(Boolean).join(" and ");
}

// Paint the drawing in MNIST's format, centred.
function copyDrawing(canvas) {
  canvas.width = canvas.height = SIDE;
  const pen = canvas.getContext("2d");
  pen.fillStyle = GROUND;
  pen.fillRect(0, 0, SIDE, SIDE);
  const given = strokes().map(({ points }) => points);
  const sides = [0, 1].map((axis) => ends(given.flat(), axis));
  const zoom = (LONGEST - STROKE) / Math.max(PEN, ...sides.map(([first, end]) => end - first));
  const [x, y] = sides.map(([first, end]) => SIDE / 2 - (zoom * (first + end)) / 2);
  pen.setTransform(zoom, 0, 0, zoom, x, y);
  pen.strokeStyle = LINE;
  pen.lineWidth = STROKE / zoom;
  for (const points of given) draw(pen, points);
  pen.setTransform(1, 0, 0, 1, 0, 0);
}

// Show a reply, or none, and return {text: about it, isFound}.
function present(reply) {
  const { classes = [], image } = reply || {};
  const [best = { name: "" }] = classes;
  const reading = find("reading");
  reading.textContent = best.name;
  reading.classList.toggle("long", best.name.length > 7);
  bars.replaceChildren(...classes.map(barOf));
  seen.replaceChildren(pictureOf(image));
  return { isFound: classes.length > 0 };
}

function barOf({ name, probability }, place) {
  const bar = document.createElement("div");
  bar.className = place ? "bar" : "bar best";
  bar.setAttribute("role", "listitem");
  bar.title = `${name}: ${(100 * probability).toFixed(2)}%`;
  bar.innerHTML = '<b></b><div class="trough"><div class="level"></div></div><small></small>';
  bar.querySelector("b").textContent = name;
  bar.querySelector(".level").style.width = `${100 * probability}%`;
  bar.querySelector("small").textContent = `${percentage(probability)}%`;
  return bar;
}

// The image as the network takes it.
function pictureOf(url) {
  const picture = document.createElement(url ? "img" : "div");
  picture.className = url ? "image" : "none";
  if (url) picture.src = url;
  if (url) picture.alt = `${ABOUT.shape[2]} x ${ABOUT.shape[1]} pixels`;
  return picture;
}
