// Decoding of the network's maps, as in detection/decode.py. READER has its constants.

class Character {
  constructor(box, found, probabilities) {
    this.box = box; // [left, top, right, bottom] in pixels of the ink
    this.found = found; // the probability that a character is there
    this.probabilities = probabilities; // of READER.symbols, given that a character is there
    this.weights = READER.characterWeights; // slope and offset that calibrate its log-odds
    this.least = this.score; // its lowest score in any view: there is only one
  }

  get symbol() {
    return READER.symbols[this.probabilities.indexOf(Math.max(...this.probabilities))];
  }

  get isDigit() {
    return this.symbol >= "0" && this.symbol <= "9";
  }

  // Whether the network found it to be neither a digit nor a sign.
  get isOther() {
    return this.symbol === READER.other && this.least > 0;
  }

  // The probability that this symbol is there.
  get score() {
    return this.calibrated(Math.max(...this.probabilities));
  }

  // The probability that the likeliest digit is there.
  get digitScore() {
    return this.calibrated(Math.max(...this.probabilities.slice(0, 10)));
  }

  // Return the probability that it is there and one of symbols with this total `share`.
  calibrated(share) {
    const p = Math.min(Math.max(this.found * share, 1e-6), 1 - 1e-6);
    const [slope, offset] = this.weights;
    return sigmoid(slope * Math.log(p / (1 - p)) + offset);
  }

  get height() {
    return this.box[3] - this.box[1];
  }
}

const sigmoid = (x) => 1 / (1 + Math.exp(-x));

// Return the characters at the peaks of the maps, each once.
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
      const found = sigmoid(centre(row, column));
      if (found <= least || !isPeak(row, column)) continue;
      const part = (start, length) => data.subarray(at(row, column) + start).slice(0, length);
      const [x, y] = [column, row].map((cell) => cell * stride + stride / 2);
      const [l, t, r, b] = part(first.box, 4).map((side) => Math.max(0.5, side * unit));
      const kinds = softmax(part(first.symbol, symbols.length));
      every.push(new Character([x - l, y - t, x + r, y + b], found, kinds));
    }
  }
  const once = [];
  for (const each of every.sort((a, b) => b.score - a.score)) {
    if (!once.some((other) => areOne(each.box, other.box))) once.push(each);
  }
  return once;
}

// Return the overlap of two boxes as a fraction of the smaller one.
function shared(a, b) {
  const sides = [0, 1].map((k) => Math.min(a[k + 2], b[k + 2]) - Math.max(a[k], b[k]));
  if (Math.min(...sides) <= 0) return 0;
  const areas = [a, b].map(([left, top, right, bottom]) => (right - left) * (bottom - top));
  return (sides[0] * sides[1]) / Math.max(1e-6, Math.min(...areas));
}

// Return whether two boxes are of the same character, not of overlapping neighbours.
function areOne(a, b) {
  const isNear = (k) => {
    const side = Math.max(a[k + 2] - a[k], b[k + 2] - b[k]);
    return Math.abs(a[k] + a[k + 2] - b[k] - b[k + 2]) / 2 < READER.near * side;
  };
  return shared(a, b) >= READER.same && isNear(0) && isNear(1);
}
