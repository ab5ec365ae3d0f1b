// Pictures and sounds as the input of a model: the same numbers as when it was trained.
//
// Pictures are resized as Pillow does it, in the same integers, so that a picture gives the same pixels bit for bit.
// Features of sounds are those of tfkd.data.sound_features, in float64 where NumPy computes in float32.
"use strict";

const PRECISION = 2 ** 22;  // of Pillow's weights for 8 bits per channel

// Pictures ------------------------------------------------------------------------------------------------------------

const SINC = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));
// Each filter of Pillow: its support in pixels and its weight at a distance.
const FILTERS = {
  box: [0.5, (x) => (x > -0.5 && x <= 0.5 ? 1 : 0)],
  bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  bicubic: [2, (x) => cubic(Math.abs(x))],
  lanczos: [3, (x) => (x >= -3 && x < 3 ? SINC(x) * SINC(x / 3) : 0)],
};

function cubic(x) {
  const a = -0.5;
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

// The pixels of a picture in the size and color of the model.
// Takes RGBA, uint8 [height, width, 4]; gives uint8 [how.height, how.width, how.channels].
function fitted({ pixels, width, height }, how) {
  const image = colored(pixels, width, height, how.channels);
  const size = [how.width, how.height];
  if (width === how.width && height === how.height) return image.data;
  if (how.crop === "center") return resized(image, size, how.resize, centered(width, height, size)).data;
  if (how.crop === "none") return resized(image, size, how.resize, [0, 0, width, height]).data;
  const inner = contained(width, height, size);
  const part = resized(image, inner, how.resize, [0, 0, width, height]);
  const left = rounded((size[0] - inner[0]) / 2), top = rounded((size[1] - inner[1]) / 2);
  const padded = new Uint8ClampedArray(size[0] * size[1] * how.channels);
  const row = inner[0] * how.channels;
  for (let y = 0; y < inner[1]; y++) {
    padded.set(part.data.subarray(y * row, (y + 1) * row), ((y + top) * size[0] + left) * how.channels);
  }
  return padded;
}

// One or three channels of RGBA; gray as Pillow's convert("L").
function colored(pixels, width, height, channels) {
  const data = new Uint8ClampedArray(width * height * channels);
  for (let i = 0, at = 0; i < pixels.length; i += 4) {
    const red = pixels[i], green = pixels[i + 1], blue = pixels[i + 2];
    if (channels === 1) data[at++] = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16;
    else for (const value of [red, green, blue]) data[at++] = value;
  }
  return { data, width, height, channels };
}

// The part of a picture that `center` keeps: left, top, right, bottom.
function centered(width, height, size) {
  const ratio = size[0] / size[1];
  let [keptWidth, keptHeight] = [width, height];
  if (width / height > ratio) keptWidth = ratio * height;
  else if (width / height < ratio) keptHeight = width / ratio;
  const left = (width - keptWidth) * 0.5, top = (height - keptHeight) * 0.5;
  return [left, top, left + keptWidth, top + keptHeight];
}

// The largest size of a picture within another, with its own aspect ratio.
function contained(width, height, size) {
  const own = width / height, wanted = size[0] / size[1];
  if (own > wanted) return [size[0], rounded((height / width) * size[0])];
  return own < wanted ? [rounded((width / height) * size[1]), size[1]] : size;
}

// The nearest whole number, ties to even, as in Python.
function rounded(x) {
  const low = Math.floor(x), rest = x - low;
  return rest > 0.5 || (rest === 0.5 && low % 2 !== 0) ? low + 1 : low;
}

function resized(image, size, filter, box) {
  if (filter === "nearest") return nearest(image, size, box);
  if (filter === "bilinear_aliased") return aliased(image, size, box);
  const across = pass(image, weights(image.width, box[0], box[2], size[0], filter), true);
  return pass(across, weights(image.height, box[1], box[3], size[1], filter), false);
}

// A place outside of the picture stays 0, as in Pillow.
function nearest(image, [width, height], box) {
  const { data, channels } = image, result = new Uint8ClampedArray(width * height * channels);
  const columns = nearestPlaces(width, box[0], box[2], image.width);
  for (const [y, row] of nearestPlaces(height, box[1], box[3], image.height)) {
    for (const [x, column] of columns) {
      const from = (row * image.width + column) * channels, to = (y * width + x) * channels;
      for (let c = 0; c < channels; c++) result[to + c] = data[from + c];
    }
  }
  return { data: result, width, height, channels };
}

// As tf.image.resize with its defaults, in float32, rounded: tfkd.data.interpolation.
function aliased(image, [width, height], box) {
  const { data, channels } = image, result = new Uint8ClampedArray(width * height * channels);
  const columns = neighbours(image.width, box[0], box[2], width);
  let at = 0;
  for (const [above, below, down] of neighbours(image.height, box[1], box[3], height)) {
    for (const [left, right, across] of columns) {
      for (let c = 0; c < channels; c++) {
        const [top, bottom] = [above, below].map((row) => {
          const from = row * image.width;
          return between(data[(from + left) * channels + c], data[(from + right) * channels + c], across);
        });
        result[at++] = rounded(between(top, bottom, down));
      }
    }
  }
  return { data: result, width, height, channels };
}

// Numbers in float32 have their result rounded once, as if it had been computed so.
function between(one, other, share) {
  return Math.fround(one + Math.fround(Math.fround(other - one) * share));
}

// The two sources that each place of the result lies between, and the share of the second one.
function neighbours(length, start, end, size) {
  const first = Math.fround(start), step = Math.fround(span(start, end) / size);
  return Array.from({ length: size }, (_, place) => {
    const at = Math.fround(Math.fround(Math.fround(Math.fround(place + 0.5) * step) - 0.5) + first);
    const low = Math.floor(at), limited = (x) => Math.min(Math.max(x, 0), length - 1);
    return [limited(low), limited(Math.ceil(at)), Math.fround(at - low)];
  });
}

// Pillow keeps the ends of a part of a picture in float32.
function span(start, end) {
  return Math.fround(Math.fround(end) - Math.fround(start));
}

// Pairs of a place and its source; the positions are sums, whose rounding decides where two sources are equally near.
function nearestPlaces(size, start, end, length) {
  const step = span(start, end) / size, pairs = [];
  for (let place = 0, at = Math.fround(start) + step * 0.5; place < size; place++, at += step) {
    if (at >= 0 && at < length) pairs.push([place, Math.trunc(at)]);
  }
  return pairs;
}

// For each place of the result, the first place of the source that counts and the weight of it and those that follow.
function weights(length, start, end, size, filter) {
  const [reach, weight] = FILTERS[filter];
  const scale = span(start, end) / size, wide = Math.max(1, scale), support = reach * wide;
  return Array.from({ length: size }, (_, place) => {
    const center = Math.fround(start) + (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support + 0.5));
    const last = Math.min(length, Math.trunc(center + support + 0.5));
    const found = Array.from({ length: last - first }, (_, i) => weight((i + first - center + 0.5) * (1 / wide)));
    const sum = found.reduce((a, b) => a + b, 0);
    const whole = found.map((one) => Math.trunc((one / (sum || 1)) * PRECISION + (one < 0 ? -0.5 : 0.5)));
    return { first, whole };
  });
}

// One of the two passes of a resize: along the rows or along the columns.
function pass({ data, width, height, channels }, places, along) {
  const [newWidth, newHeight] = along ? [places.length, height] : [width, places.length];
  const result = new Uint8ClampedArray(newWidth * newHeight * channels), step = (along ? 1 : width) * channels;
  for (let y = 0, at = 0; y < newHeight; y++) {
    for (let x = 0; x < newWidth; x++) {
      const { first, whole } = places[along ? x : y];
      const from = (along ? y * width + first : first * width + x) * channels;
      for (let c = 0; c < channels; c++) {
        let sum = PRECISION / 2;
        for (let i = 0; i < whole.length; i++) sum += data[from + i * step + c] * whole[i];
        result[at++] = Math.floor(sum / PRECISION);  // the array clamps to 0..255
      }
    }
  }
  return { data: result, width: newWidth, height: newHeight, channels };
}

// Sounds --------------------------------------------------------------------------------------------------------------

// The features of a sound, float32 [frames · bands or coefficients]; the sound itself where there are none.
function features(sound, how) {
  const length = how.samples, wave = new Float32Array(length);
  wave.set(sound.subarray(0, length));
  if (!how.features) return wave;
  const { frame, hop, fft, bands, offset, coefficients } = how.features;
  const window = Float32Array.from({ length: frame }, (_, n) => 0.5 - 0.5 * Math.cos((2 * Math.PI * n) / frame));
  const mel = melWeights(how.features), frames = 1 + Math.floor((length - frame) / hop);
  const columns = coefficients ?? bands, result = new Float32Array(frames * columns);
  const real = new Float64Array(fft), imaginary = new Float64Array(fft);
  for (let i = 0; i < frames; i++) {
    real.fill(0);
    imaginary.fill(0);
    for (let n = 0; n < frame; n++) real[n] = Math.fround(wave[i * hop + n] * window[n]);
    transform(real, imaginary);
    const energies = mel.map((band) => {
      let sum = 0;
      for (const [bin, weight] of band) sum += weight * (real[bin] ** 2 + imaginary[bin] ** 2);
      return Math.log(sum + offset);
    });
    result.set(coefficients ? cosines(energies, coefficients) : energies, i * columns);
  }
  return result;
}

// For each band the bins that count, each with its weight: triangles in mel.
function melWeights({ fft, bands, sample_rate, lowest_hz, highest_hz }) {
  const mel = (hz) => 2595 * Math.log10(1 + hz / 700), low = mel(lowest_hz), step = (mel(highest_hz) - low) / (bands + 1);
  return Array.from({ length: bands }, (_, band) => {
    const found = [];
    for (let bin = 0; bin <= fft / 2; bin++) {
      const place = (mel((bin * sample_rate) / fft) - low) / step - band;
      const weight = Math.min(place, 2 - place);
      if (weight > 0) found.push([bin, weight]);
    }
    return found;
  });
}

function cosines(energies, coefficients) {
  const bands = energies.length;
  return Array.from({ length: coefficients }, (_, c) => Math.sqrt(2 / bands) *
    energies.reduce((sum, energy, b) => sum + energy * Math.cos((Math.PI * c * (b + 0.5)) / bands), 0));
}

// The discrete Fourier transform in place; the length is a power of 2.
function transform(real, imaginary) {
  const size = real.length;
  for (let i = 1, j = 0; i < size; i++) {  // the order of reversed bits
    let bit = size >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) {
      [real[i], real[j]] = [real[j], real[i]];
      [imaginary[i], imaginary[j]] = [imaginary[j], imaginary[i]];
    }
  }
  for (let half = 1; half < size; half *= 2) {
    for (let k = 0; k < half; k++) {
      const cosine = Math.cos((Math.PI * k) / half), sine = -Math.sin((Math.PI * k) / half);
      for (let i = k; i < size; i += 2 * half) {
        const j = i + half, x = real[j] * cosine - imaginary[j] * sine, y = real[j] * sine + imaginary[j] * cosine;
        real[j] = real[i] - x;
        imaginary[j] = imaginary[i] - y;
        real[i] += x;
        imaginary[i] += y;
      }
    }
  }
}

// Ends of the model ---------------------------------------------------------------------------------------------------

// Values as LiteRT.js takes them. A quantized input gets the nearest step, as TFLiteModel.quantize_input has it: an op
// QUANTIZE in front of it, which takes float32, then has nothing to round.
function encoded(values, { dtype, scale, zero_point, lowest, highest }) {
  if (!scale) return ARRAYS[dtype].from(values);
  return ARRAYS[dtype].from(values, (x) => {
    const steps = rounded(Math.fround(Math.fround(x) / Math.fround(scale))) + zero_point;
    const whole = Math.min(highest, Math.max(lowest, steps));
    return dtype === "float32" ? real(whole, scale, zero_point) : whole;
  });
}

// The real values of an output.
function decoded(values, { dtype, scale, zero_point }) {
  return Float32Array.from(values, (one) => (scale && dtype !== "float32" ? real(one, scale, zero_point) : one));
}

function real(whole, scale, zero_point) {
  return Math.fround(Math.fround(whole - zero_point) * Math.fround(scale));
}
