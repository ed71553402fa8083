// Reading of drawings without a server: strokes -> ink -> readings, by a copy of these scripts.

const PICTURES = false; // drawings alone

// A copy of this script runs in a worker, so that drawing is not blocked.
let worker;
let failure; // rejected if the worker cannot start, or fails
if (globalThis.document) {
  const script = new Blob([document.currentScript.textContent]);
  worker = new Worker(URL.createObjectURL(script));
  failure = new Promise((_, fail) => (worker.onerror = fail));
  failure.catch(() => {}); // each drawing tells of it
} else {
  globalThis.onmessage = ({ data, ports: [port] }) => port.postMessage(readInk(data));
  readInk({ data: new Float32Array(64 * 64), height: 64, width: 64 }); // warm-up, which compiles
}

const DIGIT = 32; // height in pixels of the digits in the ink: of training's 20 to 44
let newest = 0; // number of the newest drawing
let turn = Promise.resolve(); // the reading of the newest drawing

// Return the reply for a drawing; null if it had changed before its turn.
function read({ strokes }) {
  const own = (newest += 1);
  const given = strokes.map(({ points }) => points);
  turn = turn.catch(() => {}).then(() => (own === newest ? readStrokes(given) : null));
  return turn;
}

async function readStrokes(strokes) {
  const { ink, left, top, zoom } = inkOf(strokes);
  const { port1, port2 } = new MessageChannel();
  worker.postMessage(ink, [port2]);
  const answered = new Promise((answer) => (port1.onmessage = ({ data }) => answer(data)));
  const lines = await Promise.race([answered, failure]);
  const text = lines.map((line) => line.map(({ sign }) => sign).join("")).join("\n");
  const digits = lines.flat().map((reading) => ({
    ...reading,
    box: reading.box
      .map((side, i) => (i % 2 ? (side / zoom + top) / RATIO : side / zoom + left))
      .map((place) => Math.min(Math.max(place, 0), 1)), // on the sheet
    image: btoa(String.fromCharCode(...reading.image)),
  }));
  return { text, digits };
}

// Return the ink of strokes, as far as they are on the sheet, the place of its corner, and its zoom
// in pixels of the sheet's width.
function inkOf(strokes) {
  const size = usualHeight(strokes);
  const zoom = DIGIT / size;
  const pen = Math.min(Math.max(PEN, size / 20), size / 8); // as in most of the training
  const margin = READER.margin / zoom;
  const [[left, right], [top, bottom]] = [1, RATIO].map((end, axis) => {
    const onSheet = (place) => Math.min(Math.max(place, -margin), end + margin);
    const [first, last] = ends(strokes.flat(), axis);
    return [onSheet(first - pen / 2 - margin), onSheet(last + pen / 2 + margin)];
  });
  const { coarsest } = READER;
  const whole = (length) => Math.max(1, Math.ceil((length * zoom) / coarsest)) * coarsest;
  const canvas = document.createElement("canvas");
  canvas.width = whole(right - left);
  canvas.height = whole(bottom - top);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.setTransform(zoom, 0, 0, zoom, -left * zoom, -top * zoom);
  context.lineWidth = pen;
  for (const points of strokes) draw(context, points);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
  const data = Float32Array.from({ length: pixels.length / 4 }, (_, i) => pixels[4 * i + 3] / 255);
  return { ink: { data, height: canvas.height, width: canvas.width }, left, top, zoom };
}

// Estimate the height of the digits, at least 2.5 pens: a quarter of the drawn length belongs to
// higher strokes. The median would be below the digits, as a 4 has two strokes.
function usualHeight(strokes) {
  const all = strokes.map((points) => {
    const [top, bottom] = ends(points, 1);
    return { height: bottom - top + PEN, length: PEN + lengthOf(points) };
  });
  all.sort((a, b) => b.height - a.height);
  let left = sum(all.map(({ length }) => length)) / 4;
  const { height } = all.find(({ length }) => (left -= length) <= 0);
  return Math.max(height, 2.5 * PEN);
}

function lengthOf(points) {
  return sum(points.slice(1).map(([x, y], i) => Math.hypot(x - points[i][0], y - points[i][1])));
}
