// Classification of pictures and drawings without a server, as by Trained.classify: picture -> image
// -> probabilities. ABOUT has the shape of the images.

const PICTURES = true;
// as in data/picture.py
const MAX_SIDE = 2000; // pixels of a picture's longer side
const SPREAD = 64; // of 255: opaque pixels whose lightness differs less are ink alone
const FAINT = 16; // of 255: the greatest value of 12 bits in a file of 16
const LIGHT = 0.75; // fraction of the outermost pixels above which a picture's ground is light
const LIKELIEST = 5; // classes that are shown, as in weights/predictor.py

// Return the reply for a picture's file, or without one for the drawing on the canvas.
async function read({ canvas, picture }) {
  let given = canvas;
  try {
    if (picture) given = await decoded(picture);
  } catch {
    return { refused: `${picture.name} cannot be read: no picture that this browser knows.` };
  }
  const { width, height } = given;
  const { data } = given.getContext("2d").getImageData(0, 0, width, height);
  if (picture && (await isDeep(picture)) && isFaint(data)) {
    return { refused: `${picture.name} cannot be read: of its 16 bits the upper ones are empty.` };
  }
  const image = imageOf({ data, width, height });
  return {
    classes: likeliest(probabilities(image.data)),
    image: drawn(image).toDataURL(),
    preview: picture && onGround(given, groundOf(data)).toDataURL("image/jpeg"),
  };
}

async function decoded(file) {
  const options = { premultiplyAlpha: "none", colorSpaceConversion: "none" };
  const bitmap = await createImageBitmap(file, options);
  const zoom = Math.min(1, MAX_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(zoom * bitmap.width));
  canvas.height = Math.max(1, Math.round(zoom * bitmap.height));
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.imageSmoothingQuality = "high";
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close(); // up to 200 MB
  return canvas;
}

// Return whether a file is a grey PNG of 16 bits. Python takes the white of the camera from the
// greatest value, but a canvas has the upper 8 bits alone.
async function isDeep(file) {
  const head = new Uint8Array(await file.slice(0, 26).arrayBuffer());
  return String.fromCharCode(...head.slice(1, 4)) === "PNG" && head[24] === 16 && head[25] === 0;
}

function isFaint(data) {
  return data.every((value, i) => i % 4 === 3 || value <= FAINT);
}

// Fill what is transparent on a canvas with a grey, and return the canvas.
function onGround(canvas, grey) {
  const pen = canvas.getContext("2d");
  pen.globalCompositeOperation = "destination-over";
  pen.fillStyle = `rgb(${grey}, ${grey}, ${grey})`;
  pen.fillRect(0, 0, canvas.width, canvas.height);
  return canvas;
}

function likeliest(shares) {
  const isNamed = ABOUT.classes.length === shares.length; // as in Trained.classify
  const classes = shares.map((probability, k) => ({ name: isNamed ? ABOUT.classes[k] : `${k}`, probability }));
  return classes.sort((a, b) => b.probability - a.probability).slice(0, LIKELIEST);
}

// Return RGBA pixels {data, width, height} as an image of training {data, width, height, channels}.
function imageOf(pixels) {
  const [channels, height, width] = ABOUT.shape;
  const image = scaled(scaled(converted(pixels, channels), 1, width), 0, height);
  if (!ABOUT.whiteOnBlack || !isOnLight(image)) return image;
  return { ...image, data: image.data.map((value) => 255 - value) };
}

// Return the pixels with 1, 3 or 4 channels, opaque.
function converted({ data, width, height }, channels) {
  const ground = groundOf(data);
  const made = new Uint8ClampedArray(width * height * channels).fill(255);
  // without arrays for each pixel, which took a second for a photograph
  const colour = (at, k) => {
    const alpha = data[at + 3] / 255;
    return Math.round(alpha * data[at + k] + (1 - alpha) * ground);
  };
  for (let pixel = 0; pixel < width * height; pixel += 1) {
    const [from, to] = [4 * pixel, channels * pixel];
    if (channels === 1) made[to] = luma(colour(from, 0), colour(from, 1), colour(from, 2));
    else for (let k = 0; k < 3; k += 1) made[to + k] = colour(from, k);
  }
  return { data: made, width, height, channels };
}

// As in Pillow, from ITU-R 601.
function luma(red, green, blue) {
  return (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16;
}

// Return the grey that shows through transparent pixels: of a cut-out picture its own median, of
// dark ink white, of light ink black, as in data/picture.py.
function groundOf(data) {
  const counts = new Array(256).fill(0);
  let [opaque, transparent, total, alphas] = [0, 0, 0, 0];
  for (let i = 0; i < data.length; i += 4) {
    const light = luma(data[i], data[i + 1], data[i + 2]);
    const alpha = data[i + 3];
    transparent += alpha < 255;
    total += alpha * light;
    alphas += alpha;
    if (alpha > 127) {
      counts[light] += 1;
      opaque += 1;
    }
  }
  if (!transparent) return 0;
  const spread = counts.findLastIndex(Boolean) - counts.findIndex(Boolean);
  if (opaque <= data.length / 8 || spread < SPREAD) {
    return alphas && total >= 128 * alphas ? 0 : 255;
  }
  let light = -1;
  for (let seen = 0; seen < opaque / 2; seen += counts[light]) light += 1;
  return light;
}

// Scale an image along an axis, 0 down or 1 across, as Pillow does bilinearly.
function scaled(image, axis, count) {
  const { data, width, height, channels } = image;
  const length = axis ? width : height;
  if (length === count) return image;
  const pixels = partsOf(length, count);
  const step = axis ? channels : width * channels;
  const [high, wide] = axis ? [height, count] : [count, width];
  const made = new Uint8ClampedArray(high * wide * channels); // rounds
  for (let place = 0; place < made.length; place += 1) {
    const [row, column] = [Math.floor(place / (wide * channels)), Math.floor(place / channels) % wide];
    const { first, weights } = pixels[axis ? column : row];
    const [y, x] = axis ? [row, first] : [first, column];
    let at = (y * width + x) * channels + (place % channels);
    let total = 0;
    for (const weight of weights) {
      total += weight * data[at];
      at += step;
    }
    made[place] = total;
  }
  return { data: made, width: wide, height: high, channels };
}

// Return, for each of `count` pixels, the pixels of a line that it is made of: {first, weights}.
function partsOf(length, count) {
  const scale = length / count;
  const support = Math.max(1, scale);
  return Array.from({ length: count }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.floor(centre - support + 0.5));
    const end = Math.min(length, Math.floor(centre + support + 0.5));
    const own = Array.from({ length: end - first }, (_, k) => {
      return Math.max(0, 1 - Math.abs(first + k + 0.5 - centre) / support);
    });
    const total = own.reduce((a, b) => a + b);
    return { first, weights: own.map((weight) => weight / total) };
  });
}

// Return whether most of the outermost pixels of a grey image are light.
function isOnLight({ data, width, height }) {
  const rim = [];
  for (let x = 0; x < width; x += 1) rim.push(data[x], data[(height - 1) * width + x]);
  for (let y = 0; y < height; y += 1) rim.push(data[y * width], data[(y + 1) * width - 1]);
  return rim.filter((value) => value > 127).length > LIGHT * rim.length;
}

// Return a canvas with an image on it.
function drawn({ data, width, height, channels }) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const pixels = new ImageData(width, height);
  for (let i = 0; i < width * height; i += 1) {
    const colours = [0, 1, 2].map((k) => data[i * channels + (channels === 1 ? 0 : k)]);
    pixels.data.set([...colours, 255], 4 * i);
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}
