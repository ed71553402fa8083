#ifndef MNIST_CNN_H
#define MNIST_CNN_H

#include <stdint.h>

/* Returns the digit in an image of 28 x 28 bytes, row by row, white (255) on black (0), and writes
   10 scores, 256 times the network's logits. Its maps are static: one call at a time. */
int mnist_cnn(const uint8_t *image, int32_t *scores);

#endif
