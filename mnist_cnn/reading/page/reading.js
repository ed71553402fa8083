// Reading without a server: strokes -> ink -> maps -> characters -> lines -> text, from the maps on
// as detection/decode.py and detection/lines.py have it. READER has their constants.

const PICTURES = false; // drawings alone

// A character is {box: [left, top, right, bottom] in pixels of the ink, symbol, found: how likely
// one is there, kinds: how likely each symbol is, score: how likely this symbol is there, isFound:
// false for ink that the network has not found}.

const isDigit = ({ symbol }) => symbol >= "0" && symbol <= "9";
const heightOf = ({ box }) => box[3] - box[1];
const middleOf = ({ box }, axis) => (box[axis] + box[axis + 2]) / 2;

// characters from maps

// The peaks of the maps, each character once.
function characters({ data, height, width, channels }) {
  const { first, symbols, stride, unit, least } = READER;
  const at = (row, column) => (row * width + column) * channels;
  const centre = (row, column) => data[at(row, column) + first.centre];
  const isPeak = (row, column) => {
    for (let y = Math.max(0, row - 1); y <= Math.min(height - 1, row + 1); y += 1) {
      for (let x = Math.max(0, column - 1); x <= Math.min(width - 1, column + 1); x += 1) {
        if (centre(y, x) > centre(row, column)) return false;
      }
    }
    return true;
  };
  const every = [];
  for (let row = 0; row < height; row += 1) {
    for (let column = 0; column < width; column += 1) {
      const found = 1 / (1 + Math.exp(-centre(row, column)));
      if (found <= least || !isPeak(row, column)) continue;
      const part = (start, length) => data.subarray(at(row, column) + start).slice(0, length);
      const [x, y] = [column, row].map((cell) => cell * stride + stride / 2);
      const [l, t, r, b] = part(first.box, 4).map((side) => Math.max(0.5, side * unit));
      const kinds = softmax(part(first.symbol, symbols.length));
      const likeliest = Math.max(...kinds);
      const symbol = symbols[kinds.indexOf(likeliest)];
      const score = calibrated(found * likeliest);
      const box = [x - l, y - t, x + r, y + b];
      every.push({ box, symbol, found, kinds, score, isFound: true });
    }
  }
  every.sort((a, b) => b.found * Math.max(...b.kinds) - a.found * Math.max(...a.kinds));
  const kept = [];
  for (const each of every) {
    if (kept.every((other) => shared(each.box, other.box) < READER.same)) kept.push(each);
  }
  return kept;
}

function calibrated(probability) {
  const p = Math.min(Math.max(probability, 1e-6), 1 - 1e-6);
  const [slope, offset] = READER.weights;
  return 1 / (1 + Math.exp(-slope * Math.log(p / (1 - p)) - offset));
}

// The part of the smaller box that both cover.
function shared(a, b) {
  const sides = [0, 1].map((k) => Math.min(a[k + 2], b[k + 2]) - Math.max(a[k], b[k]));
  if (Math.min(...sides) <= 0) return 0;
  const areas = [a, b].map(([left, top, right, bottom]) => (right - left) * (bottom - top));
  return (sides[0] * sides[1]) / Math.max(1e-6, Math.min(...areas));
}

// what is read of them

// A character is read where it is probable; beside digits, where writing must be something, also
// where it is the likeliest explanation of ink that nothing else explains. What stands there and
// was not found at all is writing of any kind.
function keptOf(found, ink, maps) {
  const kept = found.filter(({ score }) => score > READER.kept);
  const left = unexplained(ink, kept, maps);
  const digits = kept.filter(isDigit);
  const isBeside = (each) => digits.some((digit) => beside(each, digit));
  const weak = found.filter(({ score }) => score <= READER.kept).sort((a, b) => b.score - a.score);
  for (const each of weak) {
    let [open, all] = [0, 0];
    within(each.box, 0, ink, (i) => {
      open += left[i];
      all += ink.data[i] > READER.inked;
    });
    const isSign = READER.signs.includes(each.symbol);
    if (open <= READER.bare * all || isSign || !isBeside(each)) continue;
    kept.push(each);
    digits.push(each);
    within(each.box, READER.rim * heightOf(each), ink, (i) => (left[i] = 0));
  }
  const kinds = Array.from(READER.symbols, (symbol) => (symbol === READER.other ? 1 : 0));
  const unknown = { symbol: READER.other, found: READER.kept, kinds, isFound: false };
  const others = pieces(left, ink).map((box) => ({ ...unknown, box }));
  return [...kept, ...others.filter(isBeside)];
}

// 1 where something is written that is neither a character nor a ruled line.
function unexplained(ink, found, { data, width, height, channels }) {
  const left = Uint8Array.from(ink.data, (value) => value > READER.inked);
  const ruled = Math.log(READER.ruled / (1 - READER.ruled));
  for (let place = 0; place < height * width; place += 1) {
    if (data[place * channels + READER.first.rule] <= ruled) continue;
    const corner = [place % width, Math.floor(place / width)].map((cell) => cell * READER.stride);
    const box = [...corner, ...corner.map((end) => end + READER.stride)];
    within(box, READER.stride, ink, (i) => (left[i] = 0)); // and the cells around
  }
  for (const each of found) within(each.box, READER.rim * heightOf(each), ink, (i) => (left[i] = 0));
  return left;
}

// Calls what is given for each pixel of a box that is wider by a rim.
function within([left, top, right, bottom], rim, { width, height }, call) {
  const inside = (side, end) => Math.min(Math.max(Math.round(side), 0), end);
  for (let y = inside(top - rim, height); y < inside(bottom + rim, height); y += 1) {
    const end = inside(right + rim, width);
    for (let x = inside(left - rim, width); x < end; x += 1) call(y * width + x);
  }
}

// True where two characters may be neighbours in a line: as high, level and close.
function beside(one, other) {
  const high = Math.max(heightOf(one), heightOf(other));
  const [a, b] = [one.box, other.box];
  const isLevel = Math.min(a[3], b[3]) - Math.max(a[1], b[1]) > READER.tall * high;
  return isLevel && Math.max(a[0], b[0]) - Math.min(a[2], b[2]) < high;
}

// The boxes of pixels that hang together.
function pieces(mask, { width, height }) {
  const open = Uint8Array.from(mask);
  const boxes = [];
  for (let first = 0; first < open.length; first += 1) {
    if (!open[first]) continue;
    let box = [width, height, 0, 0];
    const next = [first];
    open[first] = 0;
    while (next.length) {
      const at = next.pop();
      const [x, y] = [at % width, Math.floor(at / width)];
      box = [Math.min(box[0], x), Math.min(box[1], y), Math.max(box[2], x + 1), Math.max(box[3], y + 1)];
      within([x, y, x + 1, y + 1], 1, { width, height }, (i) => {
        if (open[i]) next.push(i);
        open[i] = 0;
      });
    }
    boxes.push(box);
  }
  return boxes;
}

// lines

const sum = (values) => values.reduce((a, b) => a + b, 0);
const mean = (values) => sum(values) / values.length;

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return mean([sorted[(sorted.length - 1) >> 1], sorted[sorted.length >> 1]]);
}

// The slope of the lines of writing, downwards: the median over neighbours that stand level.
function slopeOf(found) {
  const slopes = [];
  for (const one of found.filter(isDigit)) {
    const beside = found.filter(isDigit).map((other) => ({
      x: middleOf(other, 0) - middleOf(one, 0),
      y: middleOf(other, 1) - middleOf(one, 1),
      room: Math.max(heightOf(one), heightOf(other)),
    })).filter(({ x, y, room }) => x > 0.1 * room && x < 2.5 * room && Math.abs(y) < 0.6 * room);
    const [next] = beside.sort((a, b) => a.x - b.x);
    if (next) slopes.push(next.y / next.x);
  }
  return slopes.length ? median(slopes) : 0;
}

// Characters by line, lines from top to bottom, each from left to right.
function linesOf(found) {
  const slope = slopeOf(found);
  const level = (each) => middleOf(each, 1) - slope * middleOf(each, 0);
  const levelOf = (row) => mean(row.map(level));
  const usual = (row) => median(row.map(heightOf));
  const isTall = (each) => !".,:-=°÷".includes(each.symbol);
  const rows = [];
  for (const each of found.filter(isTall).sort((a, b) => level(a) - level(b))) {
    const row = rows[rows.length - 1];
    const room = row && Math.max(usual(row), Math.min(heightOf(each), 2 * usual(row)));
    if (row && level(each) - levelOf(row) < 0.5 * room) row.push(each);
    else rows.push([each]);
  }
  for (const each of found.filter((other) => !isTall(other))) {
    const far = rows.map((row) => Math.abs(levelOf(row) - level(each)) / usual(row));
    const least = Math.min(...far);
    if (least < 0.9) rows[far.indexOf(least)].push(each);
  }
  for (const row of rows) row.sort((a, b) => middleOf(a, 0) - middleOf(b, 0));
  return rows;
}

// digits as MNIST has them

// What is in a box of the ink {data, height, width}: 28x28 values of 0 to 255, longest side 20,
// centred by mass.
function mnistImage(ink, box) {
  const image = new Uint8Array(784);
  const [left, top, right, bottom] = box.map((side, i) =>
    Math.min(Math.max(Math.round(side), 0), i % 2 ? ink.height : ink.width),
  );
  if (left >= right || top >= bottom) return image;
  const zoom = 20 / Math.max(right - left, bottom - top);
  const [columns, rows] = [[left, right], [top, bottom]].map((side) => parts(...side, zoom));
  const small = rows.map((row) =>
    columns.map((column) => {
      const values = row.map(([y, high]) =>
        sum(column.map(([x, wide]) => high * wide * ink.data[y * ink.width + x])),
      );
      return Math.round(255 * sum(values));
    }),
  );
  const byRow = small.map(sum);
  if (!sum(byRow)) return image;
  const start = (masses) => {
    const middle = sum(masses.map((mass, i) => mass * i)) / sum(masses);
    return Math.min(Math.max(Math.round(14 - middle), 0), 28 - masses.length);
  };
  const x = start(columns.map((_, i) => sum(small.map((row) => row[i]))));
  const y = start(byRow);
  small.forEach((row, i) => image.set(row, 28 * (y + i) + x));
  return image;
}

// For each pixel of a line that is enlarged by zoom, the pixels between start and end that it is
// the mean of, each with its share.
function parts(start, end, zoom) {
  const count = Math.max(1, Math.round((end - start) * zoom));
  const step = (end - start) / count;
  return Array.from({ length: count }, (_, i) => {
    const [a, b] = [start + i * step, start + (i + 1) * step];
    const pixels = [];
    for (let x = Math.floor(a); x < b - 1e-6; x += 1) {
      pixels.push([x, (Math.min(b, x + 1) - Math.max(a, x)) / step]);
    }
    return pixels;
  });
}

const BLUR = Float32Array.of(1, 2, 1, 2, 4, 2, 1, 2, 1).map((share) => share / 16);

// As soft as the sampling of augmentation leaves the images of training, as in reader.py.
function softened(image) {
  const settings = { kernel: [3, 3], stride: [1, 1], padding: [1, 1], dilation: [1, 1] };
  const map = { data: image, height: 28, width: 28, channels: 1 };
  return OPERATIONS.convolution({ ...settings, ...inFours(BLUR, [0]) }, map).data;
}

// readings

// The characters of ink, by line, with a box in pixels of the ink.
function readInk({ data, height, width }) {
  const ink = { data: Float32Array.from(data), height, width, channels: 1 };
  const maps = computed("detector", ink);
  return linesOf(keptOf(characters(maps), ink, maps)).map((line) => {
    const digits = line.filter(isDigit).length;
    const others = line.filter(({ symbol }) => symbol === READER.other).length;
    // in a line of digits what is none and no sign is a digit that cannot be made out; of words
    // nothing is read
    const threshold = others > digits ? Infinity : READER.threshold;
    return line.map((each) => readingOf(each, ink, digits > others, threshold));
  });
}

// A network of its own, where there is one, reads what is found as a digit.
function readingOf(character, ink, unclear, threshold) {
  const { box, symbol, found, kinds, isFound } = character;
  const image = mnistImage(ink, box);
  const isOwn = NETWORKS.classifier && isDigit(character);
  const likely = isOwn ? probabilities(softened(image)) : kinds;
  const shares = likely.slice(0, 10).map((p) => calibrated(found * p));
  const confidence = Math.max(...shares);
  const best = shares.indexOf(confidence);
  const digit = isDigit(character) && confidence >= threshold ? best : null;
  const isUnread = isDigit(character) || (unclear && symbol === READER.other && isFound);
  const other = READER.signs.includes(symbol) ? symbol : READER.unknown;
  const sign = digit !== null ? String(digit) : isUnread ? "?" : other;
  return { digit, sign, best, confidence, probabilities: shares, box, image };
}

// A copy of this script computes in a thread of its own, so that drawing goes on meanwhile.
let worker;
if (globalThis.document) {
  const script = new Blob([document.currentScript.textContent]);
  worker = new Worker(URL.createObjectURL(script));
} else {
  globalThis.onmessage = ({ data, ports: [port] }) => port.postMessage(readInk(data));
  readInk({ data: new Float32Array(64 * 64), height: 64, width: 64 }); // compiled before the first
}

// drawings

const DIGIT = 32; // height in pixels of the digits in the ink: of training's 20 to 44
let newest = 0; // counts the drawings that were given
let turn = Promise.resolve(); // of the last one

// What the page shows of a drawing; null for one that had changed before it was its turn.
function read({ strokes }) {
  const own = (newest += 1);
  const given = strokes.map(({ points }) => points);
  turn = turn.then(() => (own === newest ? readStrokes(given) : null));
  return turn;
}

async function readStrokes(strokes) {
  const { ink, left, top, zoom } = inkOf(strokes);
  const { port1, port2 } = new MessageChannel();
  worker.postMessage(ink, [port2]);
  const lines = await new Promise((answer) => (port1.onmessage = ({ data }) => answer(data)));
  const text = lines.map((line) => line.map(({ sign }) => sign).join("")).join("\n");
  const digits = lines.flat().map((reading) => ({
    ...reading,
    box: reading.box.map((side, i) => (i % 2 ? (side / zoom + top) / RATIO : side / zoom + left)),
    image: btoa(String.fromCharCode(...reading.image)),
  }));
  return { text, digits };
}

// The ink of strokes as far as they are on the sheet, at a zoom in pixels of the sheet's width, and
// where its corner lies.
function inkOf(strokes) {
  const size = usualHeight(strokes);
  const zoom = DIGIT / size;
  const pen = Math.min(Math.max(PEN, size / 20), size / 8); // as most of training's
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

// The height of the digits, at least 2.5 pens: a quarter of all that is drawn belongs to higher
// strokes. Of half of it the strokes would be lower than the digits: a 4 is made of two.
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

// The least and the greatest place of points along an axis.
function ends(points, axis) {
  const places = points.map((point) => point[axis]);
  return [Math.min, Math.max].map((end) => places.reduce((a, b) => end(a, b)));
}

function lengthOf(points) {
  return sum(points.slice(1).map(([x, y], i) => Math.hypot(x - points[i][0], y - points[i][1])));
}
