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
// by mass, see like_mnist in reading/ink.py.
function crop(ink, box) {
  const image = new Uint8Array(784);
  const [left, top, right, bottom] = box.map((side, i) =>
    Math.min(Math.max(rounded(side), 0), i % 2 ? ink.height : ink.width),
  );
  if (left >= right || top >= bottom) return image;
  const side = rounded(1.4 * Math.max(right - left, bottom - top));
  let [mass, sumX, sumY] = [0, 0, 0];
  for (let y = top; y < bottom; y += 1) {
    for (let x = left; x < right; x += 1) {
      const value = ink.data[y * ink.width + x];
      [mass, sumX, sumY] = [mass + value, sumX + value * (x - left), sumY + value * (y - top)];
    }
  }
  // where the box begins in a square of that side
  const start = (total, length) => {
    const centre = mass ? total / mass : 0;
    return Math.min(Math.max(rounded((14.5 / 28) * side - 0.5 - centre), 0), side - length);
  };
  const [x0, y0] = [start(sumX, right - left), start(sumY, bottom - top)];
  const [columns, rows] = [
    [left - x0, left, right],
    [top - y0, top, bottom],
  ].map(([from, first, end]) =>
    parts(from, from + side, 28).map((part) => part.filter(([at]) => at >= first && at < end)),
  );
  rows.forEach((row, i) =>
    columns.forEach((column, k) => {
      const values = row.map(([y, high]) =>
        sum(column.map(([x, wide]) => high * wide * ink.data[y * ink.width + x])),
      );
      image[28 * i + k] = rounded(255 * sum(values));
    }),
  );
  return image;
}

// For each of `count` pixels return the pixels between start and end that it is the mean of, each
// with its weight.
function parts(start, end, count) {
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
