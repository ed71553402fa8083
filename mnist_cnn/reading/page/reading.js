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
    // other writing there is an illegible digit, and the line right if its guess is
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
// by mass.
function crop(ink, box) {
  const image = new Uint8Array(784);
  const [left, top, right, bottom] = box.map((side, i) =>
    Math.min(Math.max(rounded(side), 0), i % 2 ? ink.height : ink.width),
  );
  if (left >= right || top >= bottom) return image;
  const zoom = 20 / Math.max(right - left, bottom - top);
  const [columns, rows] = [[left, right], [top, bottom]].map((side) => parts(...side, zoom));
  const small = rows.map((row) =>
    columns.map((column) => {
      const values = row.map(([y, high]) =>
        sum(column.map(([x, wide]) => high * wide * ink.data[y * ink.width + x])),
      );
      return rounded(255 * sum(values));
    }),
  );
  const byRow = small.map(sum);
  if (!sum(byRow)) return image;
  const start = (masses) => {
    const centre = sum(masses.map((mass, i) => mass * i)) / sum(masses);
    return Math.min(Math.max(rounded(14 - centre), 0), 28 - masses.length);
  };
  const x = start(columns.map((_, i) => sum(small.map((row) => row[i]))));
  const y = start(byRow);
  small.forEach((row, i) => image.set(row, 28 * (y + i) + x));
  return image;
}

// For each pixel of a line enlarged by zoom, return the pixels between start and end that it is the
// mean of, each with its weight.
function parts(start, end, zoom) {
  const count = Math.max(1, rounded((end - start) * zoom));
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
