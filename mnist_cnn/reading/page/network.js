// Reading without a server. LAYERS and WEIGHTS come before this script: the network's layers in
// order, and their weights as float32 in base64.

const PICTURES = false; // drawings alone
const THRESHOLD = 0.8; // the confidence below which a digit is left unread, as in reader.py
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
  convolution({ kernel, stride, padding, arrays: [weight, bias] }, map) {
    const x = padded(map, padding);
    const [height, width] = [0, 1].map(
      (axis) => Math.floor(([x.height, x.width][axis] - kernel[axis]) / stride[axis]) + 1,
    );
    const data = new Float32Array(bias.length * height * width);
    let at = 0; // in weight
    for (let out = 0; out < bias.length; out += 1) {
      const plane = data.subarray(out * height * width, (out + 1) * height * width).fill(bias[out]);
      for (let channel = 0; channel < x.channels; channel += 1) {
        for (let dy = 0; dy < kernel[0]; dy += 1) {
          for (let dx = 0; dx < kernel[1]; dx += 1) {
            const w = weight[at++];
            for (let y = 0; y < height; y += 1) {
              let from = (channel * x.height + y * stride[0] + dy) * x.width + dx;
              for (let to = y * width; to < (y + 1) * width; to += 1, from += stride[1]) {
                plane[to] += w * x.data[from];
              }
            }
          }
        }
      }
    }
    return { data, channels: bias.length, height, width };
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
    const inputs = x.data.length;
    const data = bias.map((constant, out) =>
      x.data.reduce((sum, value, i) => sum + weight[out * inputs + i] * value, constant),
    );
    return { data, channels: data.length, height: 1, width: 1 };
  },
};

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

// from strokes to MNIST's images

// Digits are made of whole strokes: of digits that touch, or that one stroke writes, nothing is
// cut apart. A digit is {strokes, box}, its box [left, top, right, bottom] with the pen's width;
// isMark for what is too small for one, or a dash.

// Readings by a digit's strokes and their points, so that only what has changed is read again.
let known = new Map();

async function read({ strokes }) {
  const rows = lines(digitsOf(strokes.map(({ points }) => points)));
  const before = known;
  known = new Map();
  const digits = rows.flat().map((written) => {
    const key = JSON.stringify(written.strokes) + Boolean(written.isMark);
    known.set(key, before.get(key) || readDigit(written));
    return known.get(key);
  });
  const signs = digits.map(({ sign }) => sign);
  const text = rows.map((row) => signs.splice(0, row.length).join("")).join("\n");
  return { text, digits };
}

function readDigit(written) {
  const image = mnistImage(written);
  const shares = written.isMark ? new Array(10).fill(0.1) : probabilities(image);
  const best = shares.indexOf(Math.max(...shares));
  const digit = shares[best] < THRESHOLD ? null : best;
  return {
    digit,
    sign: digit !== null ? String(digit) : shares[best] < NO_DIGIT ? "·" : "?",
    best,
    confidence: shares[best],
    probabilities: shares,
    box: written.box.map((side, axis) => (axis % 2 ? side / RATIO : side)),
    image: btoa(String.fromCharCode(...image)),
  };
}

function digitOf(strokes, pen = PEN) {
  const [x, y] = [0, 1].map((axis) => strokes.flat().map((point) => point[axis]));
  const least = (values) => values.reduce((a, b) => Math.min(a, b)) - pen / 2;
  const most = (values) => values.reduce((a, b) => Math.max(a, b)) + pen / 2;
  return { strokes, box: [least(x), least(y), most(x), most(y)] };
}

const widthOf = ({ box }) => box[2] - box[0];
const heightOf = ({ box }) => box[3] - box[1];

// Joins the strokes of each digit: those that touch, then each small part and the whole one that
// is closest to it, so that the flag of a 5 stays with its 5 and not with a digit above.
function digitsOf(strokes) {
  const digits = [];
  for (const stroke of strokes) {
    let digit = digitOf([stroke]);
    for (let i; (i = digits.findIndex((other) => gap(digit, other) <= PEN)) >= 0; ) {
      digit = digitOf([...digits.splice(i, 1)[0].strokes, ...digit.strokes]);
    }
    digits.push(digit);
  }
  const parts = [...digits].sort((a, b) => heightOf(a) - heightOf(b));
  for (const part of parts) {
    if (!digits.includes(part)) continue; // another has joined it
    const others = digits.filter((other) => other !== part && isPart(part, other));
    const [closest] = others.sort((a, b) => gap(part, a) - gap(part, b));
    if (!closest) continue;
    digits.splice(digits.indexOf(part), 1);
    const whole = digitOf([...closest.strokes, ...part.strokes]);
    digits[digits.indexOf(closest)] = whole;
    parts.push(whole);
  }
  const tallest = digits.reduce((height, digit) => Math.max(height, heightOf(digit)), 0);
  const isDigit = (digit) =>
    heightOf(digit) >= 0.35 * tallest && widthOf(digit) <= 3 * heightOf(digit);
  return digits.map((digit) => ({ ...digit, isMark: !isDigit(digit) }));
}

// Whether a small part lies close enough over or by another to belong to it.
function isPart(part, other) {
  const size = heightOf(other);
  if (heightOf(part) > 0.75 * size) return false;
  const shared = overlap(part, other, 0);
  if (-Math.max(shared, overlap(part, other, 1)) > size) return false;
  const stacked = shared > 0.5 * Math.min(widthOf(part), widthOf(other));
  return gap(part, other) - PEN < (stacked ? 0.25 : 0.1) * size;
}

// The length that two boxes share along an axis; negative where they are apart.
function overlap({ box: a }, { box: b }, axis) {
  return Math.min(a[axis + 2], b[axis + 2]) - Math.max(a[axis], b[axis]);
}

// The least distance between the middle lines of two parts' strokes; Infinity if they are far apart.
function gap(a, b) {
  const apart = -Math.min(overlap(a, b, 0), overlap(a, b, 1));
  if (apart > Math.max(heightOf(a), heightOf(b))) return Infinity;
  const [some, others] = [a, b].map(({ strokes }) => strokes.flatMap(dense));
  let least = Infinity;
  for (const [x, y] of some) {
    for (const [u, v] of others) least = Math.min(least, Math.hypot(x - u, y - v));
  }
  return least;
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

// Lines of writing from the top, each from the left; a digit belongs to its left neighbour's line,
// a mark to that of the nearest digit.
function lines(parts) {
  const rows = [];
  const middle = ({ box }, axis) => (box[axis] + box[axis + 2]) / 2;
  const byPlace = (a, b) => middle(a, 0) - middle(b, 0);
  for (const digit of parts.filter(({ isMark }) => !isMark).sort(byPlace)) {
    const shared = rows.map((row) => {
      const neighbour = row[row.length - 1];
      const height = Math.min(heightOf(neighbour), heightOf(digit));
      return overlap(neighbour, digit, 1) / height;
    });
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
  // a pen finer than 2 pixels of 20 is rare in MNIST
  const width = Math.max(PEN, Math.max(widthOf(digit), heightOf(digit)) / 10);
  const whole = digitOf(digit.strokes, width);
  const scale = (20 * fine) / Math.max(widthOf(whole), heightOf(whole));
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
    const side = Math.ceil((scale * (axis ? heightOf(whole) : widthOf(whole))) / fine - 0.01);
    return Math.min(Math.max(Math.round(14 - centre), 0), 28 - side);
  });
  const image = new Uint8Array(784);
  small.forEach((value, i) => {
    if (value) image[28 * (top + Math.floor(i / 20)) + left + (i % 20)] = Math.round(value);
  });
  return image;
}
