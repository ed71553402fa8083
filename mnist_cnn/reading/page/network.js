// Inference of networks. exporting/webpage.py defines, before this script, NETWORKS, each network's
// layers and the start of its weights by name, and WEIGHTS, the bytes of all weights in base64.

// A map is {data, height, width, channels}, row by row, the channels of a place side by side.

const OPERATIONS = {
  // a patch is several runs of adjacent values, so it is not copied
  convolution({ kernel, stride, padding, dilation, fours, outputs }, map) {
    const x = padded(map, padding);
    const side = (size, axis) => size - dilation[axis] * (kernel[axis] - 1) - 1;
    const height = Math.floor(side(x.height, 0) / stride[0]) + 1;
    const width = Math.floor(side(x.width, 1) / stride[1]) + 1;
    // the places of a grid, that many apart
    const grid = (high, wide, [down, across]) =>
      Int32Array.from({ length: high * wide }, (_, i) => {
        return (Math.floor(i / wide) * down * x.width + (i % wide) * across) * x.channels;
      });
    const [together, apart] = dilation[1] === 1 ? [kernel[1], 1] : [1, kernel[1]];
    const [places, starts] = [grid(height, width, stride), grid(kernel[0], apart, dilation)];
    const data = products(x.data, places, starts, together * x.channels, fours, outputs);
    return { data, height, width, channels: outputs };
  },

  dense({ fours, outputs }, x) {
    const start = Int32Array.of(0);
    const data = products(x.data, start, start, x.data.length, fours, outputs);
    return { data, height: 1, width: 1, channels: outputs };
  },

  // channel by channel, as in PyTorch
  flatten(_, { data, height, width, channels }) {
    const size = height * width;
    const moved = data.map((_, i) => data[(i % size) * channels + Math.floor(i / size)]);
    return { data: moved, height: 1, width: 1, channels: data.length };
  },

  pool({ size }, x) {
    const [height, width] = [Math.floor(x.height / size), Math.floor(x.width / size)];
    const data = new Float32Array(height * width * x.channels).fill(-Infinity);
    for (let row = 0; row < height * size; row += 1) {
      for (let column = 0; column < width * size; column += 1) {
        const to = (Math.floor(row / size) * width + Math.floor(column / size)) * x.channels;
        const from = (row * x.width + column) * x.channels;
        for (let channel = 0; channel < x.channels; channel += 1) {
          data[to + channel] = Math.max(data[to + channel], x.data[from + channel]);
        }
      }
    }
    return { data, height, width, channels: x.channels };
  },

  upsample({ factor }, x) {
    const [height, width] = [x.height * factor, x.width * factor];
    const data = new Float32Array(height * width * x.channels);
    for (let place = 0; place < height * width; place += 1) {
      const [row, column] = [Math.floor(place / width), place % width];
      const from = Math.floor(row / factor) * x.width + Math.floor(column / factor);
      const values = x.data.subarray(from * x.channels, (from + 1) * x.channels);
      data.set(values, place * x.channels);
    }
    return { data, height, width, channels: x.channels };
  },

  affine({ arrays: [scale, shift] }, x) {
    const n = scale.length; // 1, or the channels
    return { ...x, data: x.data.map((value, i) => value * scale[i % n] + shift[i % n]) };
  },

  add(_, x, y) {
    return { ...x, data: x.data.map((value, i) => value + y.data[i]) };
  },

  relu(_, x) {
    return { ...x, data: x.data.map((value) => Math.max(0, value)) };
  },
};

// Return (places, outputs): the bias plus the weights times the patch at each place. A patch is made
// of runs of `length` values at the offsets `starts`. Four outputs at two places are computed at
// once, so that a value is read once for several products: 2e9 products per second.
function products(values, places, starts, length, fours, outputs) {
  const data = new Float32Array(places.length * outputs);
  const depth = 4 * (1 + starts.length * length);
  for (let first = 0; first < outputs; first += 4) {
    const rows = Math.min(4, outputs - first);
    const begin = (first / 4) * depth;
    for (let i = 0; i < places.length; i += 2) {
      const other = Math.min(i + 1, places.length - 1);
      let a = fours[begin]; // the bias
      let b = fours[begin + 1];
      let c = fours[begin + 2];
      let d = fours[begin + 3];
      let e = a;
      let f = b;
      let g = c;
      let h = d;
      let at = begin + 4;
      for (let run = 0; run < starts.length; run += 1) {
        let p = places[i] + starts[run];
        let q = places[other] + starts[run];
        for (const end = p + length; p < end; p += 1, q += 1, at += 4) {
          const x = values[p];
          const y = values[q];
          const s = fours[at];
          const t = fours[at + 1];
          const u = fours[at + 2];
          const v = fours[at + 3];
          a += s * x;
          b += t * x;
          c += u * x;
          d += v * x;
          e += s * y;
          f += t * y;
          g += u * y;
          h += v * y;
        }
      }
      const [one, two] = [[a, b, c, d], [e, f, g, h]];
      for (let row = 0; row < rows; row += 1) {
        data[i * outputs + first + row] = one[row];
        data[other * outputs + first + row] = two[row];
      }
    }
  }
  return data;
}

// Arrange weights (outputs, depth) for `products`: for every four outputs the biases, then the
// weights of each value of the patch. Missing outputs at the end are 0.
function inFours(weight, bias) {
  const outputs = bias.length;
  const depth = weight.length / outputs;
  const block = 4 * (depth + 1);
  const fours = new Float32Array(Math.ceil(outputs / 4) * block);
  for (let row = 0; row < outputs; row += 1) {
    const begin = Math.floor(row / 4) * block + (row % 4);
    fours[begin] = bias[row];
    for (let i = 0; i < depth; i += 1) fours[begin + 4 * (i + 1)] = weight[row * depth + i];
  }
  return { fours, outputs };
}

function padded(x, [high, wide]) {
  if (!high && !wide) return x;
  const [height, width] = [x.height + 2 * high, x.width + 2 * wide];
  const data = new Float32Array(height * width * x.channels);
  const length = x.width * x.channels;
  for (let row = 0; row < x.height; row += 1) {
    const line = x.data.subarray(row * length, (row + 1) * length);
    data.set(line, ((row + high) * width + wide) * x.channels);
  }
  return { data, height, width, channels: x.channels };
}

// weights

let bytes = null; // of all networks, decoded when the first of them computes
const networks = {}; // layers with their weights, by name

function network(name) {
  if (!bytes) {
    const text = atob(WEIGHTS);
    bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
  }
  networks[name] = networks[name] || layersOf(NETWORKS[name]);
  return networks[name];
}

function layersOf({ layers, start, half }) {
  let place = start;
  const take = (length) => {
    const part = half ? halves(place, length) : new Float32Array(bytes.buffer, place, length);
    place += (half ? 2 : 4) * length;
    return part;
  };
  return layers.map(({ lengths, ...layer }) => {
    const arrays = lengths.map(take);
    const isProduct = layer.kind === "convolution" || layer.kind === "dense";
    return { ...layer, ...(isProduct ? inFours(...arrays) : { arrays }) };
  });
}

// Convert float16 to float32, whose exponents are greater by 112.
function halves(place, length) {
  const bits = new Uint32Array(length);
  const given = new Uint16Array(bytes.buffer, place, length);
  for (let i = 0; i < length; i += 1) {
    bits[i] = ((given[i] & 0x8000) << 16) | ((given[i] & 0x7fff) << 13);
  }
  return new Float32Array(bits.buffer).map((value) => value * 2 ** 112);
}

// Return the output of a network's last layer for a map.
function computed(name, map) {
  const outputs = [map];
  for (const layer of network(name)) {
    outputs.push(OPERATIONS[layer.kind](layer, ...layer.inputs.map((i) => outputs[i])));
  }
  return outputs[outputs.length - 1];
}

// Return the probabilities of the classes for the values of an image of training, of 0 to 255.
function probabilities(image) {
  const data = Float32Array.from(image, (value) => value / 255);
  const [channels, height, width] = NETWORKS.classifier.shape;
  return softmax(computed("classifier", { data, height, width, channels }).data);
}

function softmax(logits) {
  const highest = Math.max(...logits);
  const powers = Array.from(logits, (logit) => Math.exp(logit - highest));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}
