// Reading of ink, as in reading/reader.py: maps -> characters -> lines -> readings.

// Return the readings of ink {data, height, width}, by line, with a box in pixels of the ink.
function readInk({ data, height, width }) {
  const ink = { data: Float32Array.from(data), height, width, channels: 1 };
  const maps = computed("detector", ink);
  const { kept, dropped, left } = split(characters(maps), ink, maps);
  const found = NETWORKS.classifier ? kept.map((each) => classified(ink, each)) : kept;
  return lines(found).map((line) => {
    const legible = confidence(evidence(line, dropped, left, ink));
    const unread = leftUnread(line, legible);
    // other writing there is an illegible digit: the line is right only if its likeliest digit is
    const illegible = lead(line) > 0 ? line.filter((each) => each.isOther) : [];
    const sure = illegible.reduce((product, each) => product * each.digitScore, legible);
    return line.map((each) => {
      const about = { isDigit: each.isDigit || illegible.includes(each), line: sure };
      return reading(ink, each, unread.includes(each) ? Infinity : READER.threshold, about);
    });
  });
}

// Return the digits of a line that are left unread, whatever their scores: in words all; in a line
// whose digits are right with a probability `sure` below the threshold the least probable one, or
// all if there is other writing beside them.
function leftUnread(line, sure) {
  const digits = line.filter((each) => each.isDigit);
  const isDoubtful = sure < READER.threshold;
  if (lead(line) < 0 || (isDoubtful && line.some((each) => each.isOther))) return digits;
  return isDoubtful ? digits.sort((a, b) => a.score - b.score).slice(0, 1) : [];
}

// Return how many more digits a line has than characters that are neither digits nor signs.
function lead(line) {
  const others = line.filter(({ symbol }) => symbol === READER.other);
  return line.filter((each) => each.isDigit).length - others.length;
}

// Classify the character by a network of its own if it is a digit.
function classified(ink, each) {
  if (!each.isDigit) return each;
  const there = each.calibrated(sum(each.probabilities.slice(0, 10)));
  const own = new Character(each.box, there, probabilities(crop(ink, each.box)));
  return Object.assign(own, { weights: [1, 0], least: each.least });
}

// Return the reading of a character.
function reading(ink, each, threshold, about) {
  const { box, symbol } = each;
  const chances = each.probabilities.slice(0, 10).map((p) => each.calibrated(p));
  const sure = Math.max(...chances);
  const best = chances.indexOf(sure);
  const digit = each.isDigit && sure >= threshold ? best : null;
  const other = READER.signs.includes(symbol) ? symbol : READER.unknown;
  const sign = digit !== null ? String(digit) : about.isDigit ? "?" : other;
  const image = crop(ink, box);
  return { digit, sign, best, confidence: sure, probabilities: chances, box, image, ...about };
}

// Crop a box of the ink {data, height, width} to 28x28 values of 0 to 255, longest side 20, centred
// by mass, as like_mnist in ink.py does.
function crop(ink, box) {
  const image = new Uint8Array(784);
  let darkest = 0;
  inside(box, 0, ink, (i) => (darkest = Math.max(darkest, ink.data[i])));
  let [left, top, right, bottom] = [ink.width, ink.height, 0, 0];
  inside(box, 0, ink, (i) => {
    if (ink.data[i] <= READER.edge * darkest) return;
    const [x, y] = [i % ink.width, Math.floor(i / ink.width)];
    [left, right] = [Math.min(left, x), Math.max(right, x + 1)];
    [top, bottom] = [Math.min(top, y), Math.max(bottom, y + 1)];
  });
  if (left >= right) return image;
  const byColumn = new Array(right - left).fill(0);
  const byRow = new Array(bottom - top).fill(0);
  inside([left, top, right, bottom], 0, ink, (i) => {
    byColumn[(i % ink.width) - left] += ink.data[i];
    byRow[Math.floor(i / ink.width) - top] += ink.data[i];
  });
  const step = Math.max(right - left, bottom - top) / READER.fitted;
  const columns = shares(byColumn, step);
  shares(byRow, step).forEach((row, i) =>
    columns.forEach((column, k) => {
      const values = row.map(([y, high]) => {
        const start = (top + y) * ink.width + left;
        return sum(column.map(([x, wide]) => high * wide * ink.data[start + x]));
      });
      image[28 * i + k] = rounded(255 * Math.min(1, sum(values)));
    }),
  );
  return image;
}

// Return the shares of rows or columns with these masses in each of 28, which are `step` apart, as
// lists of [index, share]. The centre of the masses comes to that of the 15th, unless ink would be
// lost at a side.
function shares(masses, step) {
  const centre = sum(masses.map((mass, i) => mass * (i + 0.5))) / sum(masses);
  const start = Math.min(Math.max(14.5 - centre / step, 0), 28 - masses.length / step);
  const half = Math.max(step, 1) / 2; // enlarged, a point lies between two: bilinear
  return Array.from({ length: 28 }, (_, i) => {
    const middle = (i + 0.5 - start) * step;
    const [from, to] = [Math.max(0, middle - half), Math.min(masses.length, middle + half)];
    const parts = [];
    for (let x = Math.floor(from); x < to; x += 1) {
      parts.push([x, (Math.min(to, x + 1) - Math.max(from, x)) / (2 * half)]);
    }
    return parts;
  });
}
