#include "mnist_cnn.h"

/* SIZES */

/* The factor and the bias of each output of each layer, and the weights of BITS bits, as odd
   multiples of a unit of their output, from -(2^BITS - 1) to 2^BITS - 1, packed without gaps. */
static const struct {
    int16_t affine[OUTPUTS][2];
    uint8_t weights[BYTES];
} constants = {{
/* AFFINE */
}, {
/* WEIGHTS */
}};

/* A map has its channels one after the other, each row by row. */
typedef struct {
    const uint8_t *in;
    uint8_t *out;
    int channels, height, width; /* of the map `in` */
    int zero;                    /* the byte that stands for 0 in it */
    uint32_t weight;             /* the next one */
    int output;                  /* the next one: its factor and bias are used then */
} state;

static uint8_t first[FIRST], second[SECOND]; /* maps, in turn */
static int16_t kernel[KERNEL];               /* the weights of one output */

static int16_t next_weight(state *s)
{
    uint32_t bit = BITS * s->weight++;
    const uint8_t *at = constants.weights + bit / 8;
    uint16_t code = (uint16_t)((at[0] | (uint32_t)at[1] << 8) >> bit % 8 & ((1U << BITS) - 1));
    return (int16_t)(2 * code - ((1 << BITS) - 1));
}

/* The products of the kernel and the map from row y and column x on; beyond its edges it is 0. */
static int32_t convolved(const state *s, int y, int x, int rows, int columns)
{
    const int16_t *weight = kernel;
    int from = x < 0 ? -x : 0, to = x + columns > s->width ? s->width - x : columns;
    int32_t sum = 0;
    for (int c = 0; c < s->channels; c++)
        for (int row = y; row < y + rows; row++, weight += columns) {
            if (row < 0 || row >= s->height)
                continue;
            const uint8_t *in = s->in + ((int32_t)c * s->height + row) * s->width;
            for (int k = from; k < to; k++)
                sum += (int32_t)weight[k] * (in[x + k] - s->zero);
        }
    return sum;
}

/* A convolution and a max-pooling, then ReLU to bytes, or the scores. A dense layer is a convolution
   whose kernel is as large as the map. Factors are shifted by `shift` bits, biases by `up` fewer. */
static void layer(state *s, int outputs, int rows, int columns, int stride, int padding, int pool,
                  int shift, int up, int32_t *scores)
{
    int height = ((s->height + 2 * padding - rows) / stride + 1) / pool;
    int width = ((s->width + 2 * padding - columns) / stride + 1) / pool;
    uint8_t *out = s->out;
    for (int o = 0; o < outputs; o++) {
        const int16_t *affine = constants.affine[s->output++];
        for (int k = 0; k < s->channels * rows * columns; k++)
            kernel[k] = next_weight(s);
        for (int y = 0; y < height; y++)
            for (int x = 0; x < width; x++) {
                int32_t greatest = INT32_MIN;
                for (int p = 0; p < pool * pool; p++) {
                    int top = (y * pool + p / pool) * stride - padding;
                    int left = (x * pool + p % pool) * stride - padding;
                    int32_t sum = convolved(s, top, left, rows, columns);
                    greatest = sum > greatest ? sum : greatest;
                }
                int64_t value = (int64_t)greatest * affine[0] + affine[1] * ((int64_t)1 << up);
                if (scores) {
                    scores[o] = (int32_t)(value / ((int64_t)1 << shift));
                } else {
                    value = value < 0 ? 0 : (value + ((int64_t)1 << shift >> 1)) >> shift;
                    *out++ = (uint8_t)(value > 255 ? 255 : value);
                }
            }
    }
    s->in = s->out;
    s->out = s->in == first ? second : first;
    s->channels = outputs;
    s->height = height;
    s->width = width;
    s->zero = 0;
}

int mnist_cnn(const uint8_t *image, int32_t *scores)
{
    state s = {image, first, 1, 28, 28, ZERO, 0, 0};
    /* LAYERS */
    int best = 0;
    for (int k = 1; k < 10; k++)
        best = scores[k] > scores[best] ? k : best;
    return best;
}
