// Lines of characters, and evidence of errors in a line, as in detection/lines.py. READER has its
// constants.

const sum = (values) => values.reduce((a, b) => a + b, 0);
const mean = (values) => sum(values) / values.length;

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return mean([sorted[(sorted.length - 1) >> 1], sorted[sorted.length >> 1]]);
}

// Round half to even, as Python does.
function rounded(value) {
  const up = Math.round(value);
  return up - value === 0.5 && up % 2 ? up - 1 : up;
}

// The centre of a box along an axis.
const middle = (box, axis) => (box[axis] + box[axis + 2]) / 2;

// Return the slope of the lines of writing, downwards: the median over level neighbours.
function slopeOf(found) {
  const tall = found.filter(({ symbol }) => !READER.aside.includes(symbol));
  const slopes = [];
  for (const one of tall) {
    const beside = tall.map((other) => ({
      x: middle(other.box, 0) - middle(one.box, 0),
      y: middle(other.box, 1) - middle(one.box, 1),
      room: Math.max(one.height, other.height),
    })).filter(({ x, y, room }) => x > 0.1 * room && x < 2.5 * room && Math.abs(y) < 0.6 * room);
    const [next] = beside.sort((a, b) => a.x - b.x);
    if (next) slopes.push(next.y / next.x);
  }
  return slopes.length ? median(slopes) : 0;
}

// Group characters into lines, from top to bottom, each from left to right.
function lines(found) {
  const slope = slopeOf(found);
  const level = ({ box }) => middle(box, 1) - slope * middle(box, 0);
  const levelOf = (row) => mean(row.map(level));
  const heightOf = (row) => median(row.map((each) => each.height));
  const isTall = ({ symbol }) => !".,:-=°÷".includes(symbol);
  const rows = [];
  for (const each of found.filter(isTall).sort((a, b) => level(a) - level(b))) {
    const row = rows[rows.length - 1];
    const room = row && Math.max(heightOf(row), Math.min(each.height, 2 * heightOf(row)));
    if (row && level(each) - levelOf(row) < 0.5 * room) row.push(each);
    else rows.push([each]);
  }
  for (const each of found.filter((other) => !isTall(other))) {
    const far = rows.map((row) => Math.abs(levelOf(row) - level(each)) / heightOf(row));
    const nearest = Math.min(...far);
    if (nearest < 0.9) rows[far.indexOf(nearest)].push(each);
  }
  for (const row of rows) row.sort((a, b) => middle(a.box, 0) - middle(b.box, 0));
  return rows;
}

// Return a mask of the ink that belongs to neither a character nor a ruled line.
function unexplained(ink, found, { data, width, height, channels }) {
  const { stride, first, ruled, inked, rim } = READER;
  const left = Uint8Array.from(ink.data, (value) => value > inked);
  for (let place = 0; place < height * width; place += 1) {
    if (sigmoid(data[place * channels + first.rule]) <= ruled) continue;
    const corner = [place % width, Math.floor(place / width)].map((cell) => cell * stride);
    const box = [...corner, ...corner.map((end) => end + stride)];
    inside(box, stride, ink, (i) => (left[i] = 0)); // and the cells around
  }
  for (const { box, height } of found) inside(box, rim * height, ink, (i) => (left[i] = 0));
  return left;
}

// Split characters into those that are read, {kept}, and the rest, {dropped}; also return the
// unexplained ink, {left}. Probable characters are read, and the likeliest explanations of ink that
// nothing else explains, the least likely ones only beside digits.
function split(found, ink, maps) {
  const kept = found.filter(({ score }) => score > READER.probable);
  const dropped = [];
  const left = unexplained(ink, kept, maps);
  const digits = kept.filter((each) => each.isDigit);
  const doubtful = found.filter(({ score }) => score <= READER.probable);
  for (const each of doubtful.sort((a, b) => b.score - a.score)) {
    let [open, all] = [0, 0];
    inside(each.box, 0, ink, (i) => {
      open += left[i];
      all += ink.data[i] > READER.inked;
    });
    const isBare = open > READER.bare * all;
    const isWriting = each.score > READER.kept || digits.some((digit) => beside(each, digit));
    if (isBare && isWriting && !READER.signs.includes(each.symbol)) {
      kept.push(each);
      if (each.isDigit) digits.push(each);
      inside(each.box, READER.rim * each.height, ink, (i) => (left[i] = 0));
    } else {
      dropped.push(each);
    }
  }
  return { kept: [...kept, ...unknown(left, digits, ink)], dropped, left };
}

// Return undetected writing of any kind that is beside digits and as tall as they are.
function unknown(left, digits, sides) {
  const kinds = Array.from(READER.symbols, (symbol) => Number(symbol === READER.other));
  return pieces(left, sides)
    .map((box) => new Character(box, READER.kept, kinds))
    .map((each) => Object.assign(each, { weights: [1, 0], least: 0 }))
    .filter((each) => digits.some((digit) => beside(each, digit)));
}

// Return the boxes of connected components.
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
      inside([x, y, x + 1, y + 1], 1, { width, height }, (i) => {
        if (open[i]) next.push(i);
        open[i] = 0;
      });
    }
    boxes.push(box);
  }
  return boxes;
}

// Return whether two characters may be neighbours in a line: as high, level and close.
function beside(one, other) {
  const high = Math.max(one.height, other.height);
  const [a, b] = [one.box, other.box];
  const isLevel = Math.min(a[3], b[3]) - Math.max(a[1], b[1]) > READER.tall * high;
  return isLevel && Math.max(a[0], b[0]) - Math.min(a[2], b[2]) < high;
}

// Call a function for each pixel of a box with a margin of `rim` pixels.
function inside([left, top, right, bottom], rim, { width, height }, call) {
  const pixel = (side, end) => Math.min(Math.max(rounded(side), 0), end);
  for (let y = pixel(top - rim, height); y < pixel(bottom + rim, height); y += 1) {
    const end = pixel(right + rim, width);
    for (let x = pixel(left - rim, width); x < end; x += 1) call(y * width + x);
  }
}

// Return the box where more digits of a line would stand.
function band(line) {
  const digits = line.filter((each) => each.isDigit);
  const tall = digits.length ? digits : line;
  const [top, bottom] = [1, 3].map((k) => median(tall.map(({ box }) => box[k])));
  const room = 0.8 * (bottom - top);
  const left = Math.min(...line.map(({ box }) => box[0]));
  return [left - room, top, Math.max(...line.map(({ box }) => box[2])) + room, bottom];
}

// Return whether a box is in a line's band `of` and tall enough for one of its digits.
function within(box, of) {
  const isIn = (k) => of[k] < middle(box, k) && middle(box, k) < of[k + 2];
  return isIn(0) && isIn(1) && box[3] - box[1] > READER.tall * (of[3] - of[1]);
}

// Return evidence of errors in a line's digits; the greater, the more doubtful: the negative
// log-probabilities of its digits' scores, of their lowest scores, and of no sign being a digit;
// the score of the likeliest dropped digit; unexplained ink, in quarters of the squared
// height.
function evidence(line, dropped, left, sides) {
  const digits = line.filter((each) => each.isDigit);
  const signs = line.filter((each) => !each.isDigit);
  const own = band(line);
  const height = Math.max(1, own[3] - own[1]);
  const weak = dropped.filter(({ box }) => within(box, own)).map((each) => each.digitScore);
  const log = (probability) => Math.log(Math.max(probability, READER.rare));
  let bare = 0;
  inside(own, 0, sides, (i) => (bare += left[i]));
  return [
    -sum(digits.map(({ score }) => Math.log(score))),
    -sum(digits.map(({ least }) => log(least))),
    -sum(signs.map(({ digitScore }) => log(1 - digitScore))),
    Math.max(0, ...weak),
    Math.min(1, (4 * bare) / height ** 2),
  ];
}

// Return the probability that the digits of a line are right, from evidence.
function confidence(of) {
  const weights = READER.lineWeights;
  return sigmoid(sum(of.map((value, i) => value * weights[i])) + weights[of.length]);
}
