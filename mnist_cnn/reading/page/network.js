// Reading without a server. LAYERS and WEIGHTS come before this script: the network's layers in
// order, and their weights as float32 in base64.

const PICTURES = false; // drawings alone
const THRESHOLD = 0.75; // the confidence below which a digit is left unread, as in reader.py
const NO_DIGIT = 0.35; // that below which it is none

// the network

// A map is {data, channels, height, width}, its data channel by channel, row by row.

const layers = (() => {
  const bytes = Uint8Array.from(atob(WEIGHTS), (sign) => sign.charCodeAt(0));
  let start = 0;
  const take = (length) => {
    const part = new Float32Array(bytes.buffer, 4 * start, length);
    start += length;
    return part;
  };
  return LAYERS.map((layer) => ({ ...layer, arrays: layer.lengths.map(take) }));
})();

const OPERATIONS = {
  convolution({ kernel: [high, wide], stride, padding, arrays: [weight, bias] }, map) {
    const x = padded(map, padding);
    const height = Math.floor((x.height - high) / stride[0]) + 1;
    const width = Math.floor((x.width - wide) / stride[1]) + 1;
    const patches = new Float32Array((height * width * weight.length) / bias.length);
    let to = 0;
    for (let place = 0; place < height * width; place += 1) {
      const corner = Math.floor(place / width) * stride[0] * x.width + (place % width) * stride[1];
      for (let row = 0; row < x.channels * high; row += 1) {
        const line = Math.floor(row / high) * x.height + (row % high);
        const from = corner + line * x.width;
        for (let at = from; at < from + wide; at += 1) patches[to++] = x.data[at];
      }
    }
    return { data: products(weight, bias, patches), channels: bias.length, height, width };
  },

  pool({ size }, x) {
    const [height, width] = [Math.floor(x.height / size), Math.floor(x.width / size)];
    const data = new Float32Array(x.channels * height * width).fill(-Infinity);
    for (let row = 0; row < x.channels * height * size; row += 1) {
      const [channel, y] = [Math.floor(row / (height * size)), row % (height * size)];
      const to = (channel * height + Math.floor(y / size)) * width;
      const from = (channel * x.height + y) * x.width;
      for (let column = 0; column < width * size; column += 1) {
        const place = to + Math.floor(column / size);
        data[place] = Math.max(data[place], x.data[from + column]);
      }
    }
    return { data, channels: x.channels, height, width };
  },

  affine({ arrays: [scale, shift] }, x) {
    const size = x.data.length / scale.length;
    const channel = (i) => Math.floor(i / size);
    return { ...x, data: x.data.map((value, i) => value * scale[channel(i)] + shift[channel(i)]) };
  },

  relu(_, x) {
    return { ...x, data: x.data.map((value) => Math.max(0, value)) };
  },

  dense({ arrays: [weight, bias] }, x) {
    return { data: products(weight, bias, x.data), channels: bias.length, height: 1, width: 1 };
  },
};

// (N, P): rows of a weight (N, K) times each of the patches (P, K), plus bias. Of four rows at
// once: a value is then read once for the four.
function products(weight, bias, patches) {
  const depth = weight.length / bias.length;
  const places = patches.length / depth;
  const data = new Float32Array(bias.length * places);
  for (let first = 0; first < bias.length; first += 4) {
    // the last row again where fewer are left
    const rows = [0, 1, 2, 3].map((i) => Math.min(first + i, bias.length - 1));
    const [a, b, c, d] = rows.map((row) => weight.subarray(row * depth, (row + 1) * depth));
    for (let place = 0; place < places; place += 1) {
      let [p, q, r, s] = rows.map((row) => bias[row]);
      for (let k = 0, at = place * depth; k < depth; k += 1, at += 1) {
        const value = patches[at];
        p += a[k] * value;
        q += b[k] * value;
        r += c[k] * value;
        s += d[k] * value;
      }
      data[rows[0] * places + place] = p;
      data[rows[1] * places + place] = q;
      data[rows[2] * places + place] = r;
      data[rows[3] * places + place] = s;
    }
  }
  return data;
}

function padded(x, [high, wide]) {
  if (!high && !wide) return x;
  const [height, width] = [x.height + 2 * high, x.width + 2 * wide];
  const data = new Float32Array(x.channels * height * width);
  for (let row = 0; row < x.channels * x.height; row += 1) {
    const [channel, y] = [Math.floor(row / x.height), row % x.height];
    const line = x.data.subarray(row * x.width, (row + 1) * x.width);
    data.set(line, (channel * height + y + high) * width + wide);
  }
  return { data, channels: x.channels, height, width };
}

// The probabilities of the digits 0 to 9 for 28x28 values of 0 to 255, white on black.
function probabilities(image) {
  let x = { data: Float32Array.from(image, (v) => v / 255), channels: 1, height: 28, width: 28 };
  for (const layer of layers) x = OPERATIONS[layer.kind](layer, x);
  const highest = Math.max(...x.data);
  const powers = Array.from(x.data, (logit) => Math.exp(logit - highest));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

// As soft as the sampling of augmentation leaves the images of training, as in reader.py.
function softened(image) {
  const weight = Float32Array.of(1, 2, 1, 2, 4, 2, 1, 2, 1).map((share) => share / 16);
  const kernel = { kernel: [3, 3], stride: [1, 1], padding: [1, 1], arrays: [weight, [0]] };
  return OPERATIONS.convolution(kernel, { data: image, channels: 1, height: 28, width: 28 }).data;
}

// A copy of this script computes in a thread of its own, so that drawing goes on meanwhile.
let worker;
if (globalThis.document) {
  const script = new Blob([document.currentScript.textContent]);
  worker = new Worker(URL.createObjectURL(script));
} else {
  globalThis.onmessage = ({ data, ports: [port] }) => port.postMessage(probabilities(data));
  probabilities(new Uint8Array(784)); // compiled before the first digit
}

function probabilitiesOf(image) {
  const { port1, port2 } = new MessageChannel();
  worker.postMessage(image, [port2]);
  return new Promise((answer) => (port1.onmessage = ({ data }) => answer(data)));
}

// from strokes to MNIST's images

// Parts are made of whole strokes: of digits that touch, or that one stroke writes, nothing is
// cut apart; else they are grouped as reading/shapes.py groups the strokes of a picture. A part is
// {strokes, points: of the strokes' middle lines, ink: their length, width, height, extent: the
// longer of both, box: [left, top, right, bottom]}, all with the pen's width.

// Readings by a part's strokes, so that only what has changed is read again.
let known = new Map();

async function read({ strokes }) {
  const rows = lines(partsOf(strokes.map(({ points }) => points)));
  const before = known;
  known = new Map();
  const readings = rows.flat().map((part) => {
    const key = JSON.stringify(part.strokes) + part.isMark;
    known.set(key, before.get(key) || readDigit(part));
    return known.get(key);
  });
  const digits = await Promise.all(readings);
  const signs = digits.map(({ sign }) => sign);
  const text = rows.map((row) => signs.splice(0, row.length).join("")).join("\n");
  return { text, digits };
}

async function readDigit(part) {
  const image = mnistImage(part);
  const shares = part.isMark ? new Array(10).fill(0.1) : await probabilitiesOf(softened(image));
  const best = shares.indexOf(Math.max(...shares));
  const digit = shares[best] < THRESHOLD ? null : best;
  return {
    digit,
    sign: digit !== null ? String(digit) : shares[best] < NO_DIGIT ? "·" : "?",
    best,
    confidence: shares[best],
    probabilities: shares,
    box: part.box.map((side, axis) => (axis % 2 ? side / RATIO : side)),
    image: btoa(String.fromCharCode(...image)),
  };
}

function partOf(strokes, pen = PEN) {
  const points = strokes.flatMap(dense);
  const [x, y] = [0, 1].map((axis) => points.map((point) => point[axis]));
  const [left, top] = [x, y].map((places) => places.reduce((a, b) => Math.min(a, b)) - pen / 2);
  const [right, bottom] = [x, y].map((places) => places.reduce((a, b) => Math.max(a, b)) + pen / 2);
  const [width, height] = [right - left, bottom - top];
  const extent = Math.max(width, height);
  const ink = strokes.reduce((sum, stroke) => sum + pen + lengthOf(stroke), 0);
  return { strokes, points, ink, width, height, extent, box: [left, top, right, bottom] };
}

function lengthOf(points) {
  const to = ([x, y], i) => Math.hypot(x - points[i][0], y - points[i][1]);
  return points.slice(1).reduce((sum, point, i) => sum + to(point, i), 0);
}

// A stroke's points with more between them, so that none are further apart than half the pen.
function dense(points) {
  return points.flatMap(([x, y], i) => {
    const [u, v] = points[Math.max(0, i - 1)];
    const parts = Math.ceil(Math.hypot(x - u, y - v) / (PEN / 2)) || 1;
    const between = (k) => [x + ((u - x) * k) / parts, y + ((v - y) * k) / parts];
    return Array.from({ length: parts }, (_, k) => between(k));
  });
}

// The parts that strokes are joined to: those that touch, then each small one and its partner.
function partsOf(strokes) {
  const pieces = [];
  for (const stroke of strokes) {
    let piece = partOf([stroke]);
    for (let i; (i = pieces.findIndex((other) => gap(piece, other, 0) <= 0)) >= 0; ) {
      piece = partOf([...pieces.splice(i, 1)[0].strokes, ...piece.strokes]);
    }
    pieces.push(piece);
  }
  const size = usualHeight(pieces);
  for (const piece of pieces) piece.group = [piece];
  for (const piece of [...pieces].sort((a, b) => a.extent - b.extent)) {
    const partner = partnerOf(piece, pieces, size);
    if (!partner || partner.group === piece.group) continue;
    partner.group.push(...piece.group);
    for (const each of piece.group) each.group = partner.group;
  }
  const groups = [...new Set(pieces.map(({ group }) => group))];
  const parts = groups.map((group) => partOf(group.flatMap((piece) => piece.strokes)));
  return parts.map((part) => ({ ...part, isMark: part.height < 0.35 * size || isDash(part) }));
}

// Half of all ink is in higher pieces: dots and dashes weigh little.
function usualHeight(pieces) {
  const sorted = [...pieces].sort((a, b) => b.height - a.height);
  let left = pieces.reduce((sum, { ink }) => sum + ink, 0) / 2;
  for (const { ink, height } of sorted) {
    left -= ink;
    if (left <= 0) return height;
  }
  return 0;
}

// Digits that touch are wide too, but no single stroke.
const isDash = ({ width, height, ink }) => width > 3 * height && ink < 1.7 * width;

// The piece that an incomplete one belongs to: a 5's flag lies over its body.
function partnerOf(piece, pieces, size) {
  const isRule = (part) => part.width > size && part.height < 0.5 * size && isDash(part);
  if (piece.height > 0.75 * size || isRule(piece)) return null;
  const isDot = piece.extent < 0.35 * size;
  let [best, least] = [null, (isDot ? 0.45 : 0.25) * size];
  for (const mate of pieces) {
    if (mate === piece || mate.extent < 0.2 * size || isRule(mate)) continue;
    const both = Math.max(piece.box[3], mate.box[3]) - Math.min(piece.box[1], mate.box[1]);
    if (both > (isDot ? 1.8 : 1.5) * Math.max(size, mate.height)) continue;
    const shared = overlap(piece, mate, 0);
    const stacked = shared > 0.5 * Math.min(piece.width, mate.width);
    const isOver = isDot && stacked && piece.box[3] <= mate.box[1];
    const near = gap(piece, mate, least);
    if (!isOver && (piece.extent < 0.2 * size || near > 0.25 * size)) continue;
    // beside each other they may be two digits, which nothing would cut apart
    const isBeside = shared > 0 && near < 0.1 * size;
    if (near < least && (stacked || isBeside)) [best, least] = [mate, near];
  }
  return best;
}

// The length that two boxes share along an axis; negative where they are apart.
function overlap({ box: a }, { box: b }, axis) {
  return Math.min(a[axis + 2], b[axis + 2]) - Math.max(a[axis], b[axis]);
}

// The least distance between two parts' ink, negative where they touch; Infinity beyond a reach.
function gap(a, b, reach) {
  if (Math.min(overlap(a, b, 0), overlap(a, b, 1)) < -reach) return Infinity;
  let least = Infinity; // its square
  for (const [x, y] of a.points) {
    for (const [u, v] of b.points) least = Math.min(least, (x - u) ** 2 + (y - v) ** 2);
  }
  return Math.sqrt(least) - PEN;
}

// Lines of writing from the top, each from the left. A digit belongs to the line of its left
// neighbour or the one before, which may be low; a mark to that of the nearest digit.
function lines(parts) {
  const rows = [];
  const middle = ({ box }, axis) => (box[axis] + box[axis + 2]) / 2;
  const byPlace = (a, b) => middle(a, 0) - middle(b, 0);
  for (const digit of parts.filter(({ isMark }) => !isMark).sort(byPlace)) {
    const share = (other) => overlap(other, digit, 1) / Math.min(other.height, digit.height);
    const shared = rows.map((row) => Math.max(...row.slice(-2).map(share)));
    const best = shared.indexOf(Math.max(...shared));
    if (best >= 0 && shared[best] > 0.4) rows[best].push(digit);
    else rows.push([digit]);
  }
  for (const mark of parts.filter(({ isMark }) => isMark)) {
    const beside = [0, 1].map((axis) => (digit) => middle(digit, axis) - middle(mark, axis));
    const far = (digit) => Math.hypot(...beside.map((distance) => distance(digit)));
    const [nearest] = rows.flat().sort((a, b) => far(a) - far(b));
    if (nearest) rows.find((row) => row.includes(nearest)).push(mark);
    else rows.push([mark]);
  }
  for (const row of rows) row.sort(byPlace);
  const height = (row) => row.reduce((sum, digit) => sum + middle(digit, 1), 0) / row.length;
  return rows.sort((a, b) => height(a) - height(b));
}

// The digit as MNIST has it: 28x28 values of 0 to 255, longest side 20, centred by mass.
function mnistImage(digit) {
  const fine = 8; // pixels of the drawing for one of the image
  // pens finer than 2 pixels of 20 or wider than 4 are rare in MNIST
  const width = Math.min(Math.max(PEN, digit.extent / 10), digit.extent / 5);
  const whole = partOf(digit.strokes, width);
  const scale = (20 * fine) / whole.extent;
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 20 * fine;
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, -whole.box[0] * scale, -whole.box[1] * scale);
  pen.lineWidth = width;
  for (const points of digit.strokes) draw(pen, points);
  const { data } = pen.getImageData(0, 0, canvas.width, canvas.height);
  const small = new Float32Array(400);
  for (let i = 3; i < data.length; i += 4) {
    const [x, y] = [(i >> 2) % canvas.width, Math.floor((i >> 2) / canvas.width)];
    small[20 * Math.floor(y / fine) + Math.floor(x / fine)] += data[i] / fine ** 2;
  }
  const mass = small.reduce((sum, value) => sum + value);
  const [left, top] = [(i) => i % 20, (i) => Math.floor(i / 20)].map((place, axis) => {
    const centre = small.reduce((sum, value, i) => sum + value * place(i), 0) / mass;
    const side = Math.ceil((scale * (axis ? whole.height : whole.width)) / fine - 0.01);
    return Math.min(Math.max(Math.round(14 - centre), 0), 28 - side);
  });
  const image = new Uint8Array(784);
  small.forEach((value, i) => {
    if (value) image[28 * (top + Math.floor(i / 20)) + left + (i % 20)] = Math.round(value);
  });
  return image;
}
