/* One tile of a Mandelbrot picture: a WASI preview 1 command.
 *
 * arguments: COLUMN ROW TILES SIZE ITERATIONS [CENTRE_X CENTRE_Y WIDTH]
 * output:    SIZE * SIZE pixels, row by row from the top left, 3 bytes each (red, green, blue)
 * exit code: 0, or 2 when the arguments make no sense
 *
 * The picture has TILES x TILES tiles and shows a square of WIDTH around the centre. Every pixel
 * is the mean of SAMPLES x SAMPLES points. Only + - * / and bit operations on doubles are used,
 * which IEEE 754 defines to the last bit, so every device makes the same bytes.
 */
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#define MAX_SIZE 512
#define SAMPLES 4
#define ESCAPE 256.0 /* squared radius: large, so that the colours run smoothly */

static const double DEFAULT_X = -0.743643135, DEFAULT_Y = 0.131825963, DEFAULT_WIDTH = 0.0075;

/* Colours at equal steps of one turn of the palette; the last runs into the first. */
static const double PALETTE[][3] = {
    {6, 10, 48},    {12, 44, 122},  {36, 108, 190}, {134, 196, 232}, {240, 247, 238},
    {250, 212, 120}, {244, 146, 28}, {176, 62, 26},  {84, 16, 52},    {28, 6, 60},
};
#define COLOURS ((int)(sizeof PALETTE / sizeof PALETTE[0]))
#define LEVELS_PER_TURN 4.0 /* doublings of the escape time until the colours repeat */

static unsigned char pixels[MAX_SIZE * MAX_SIZE * 3];

/* Digits, optionally with sign and fraction; 0 on anything else. */
static int number(const char *text, double *out) {
  double value = 0, unit = 1;
  int digits = 0, point = 0, negative = *text == '-';
  for (text += negative; *text; text++) {
    if (*text == '.' && !point) {
      point = 1;
    } else if (*text >= '0' && *text <= '9' && digits < 18) {
      value = value * 10 + (*text - '0');
      unit *= point ? 10 : 1;
      digits++;
    } else {
      return 0;
    }
  }
  *out = (negative ? -value : value) / unit;
  return digits > 0;
}

static int whole(const char *text, int least, int most, int *out) {
  double value;
  if (!number(text, &value) || value < least || value > most || value != (int)value) return 0;
  *out = (int)value;
  return 1;
}

/* Logarithm to base 2 of x > 0: the exponent's bits plus a series in (m - 1) / (m + 1). */
static double log_2(double x) {
  uint64_t bits;
  memcpy(&bits, &x, sizeof bits);
  int exponent = (int)(bits >> 52 & 0x7ff) - 1023;
  bits = (bits & 0xfffffffffffffULL) | 0x3ff0000000000000ULL;
  memcpy(&x, &bits, sizeof x);
  double t = (x - 1) / (x + 1), s = t * t;
  double sum = 1 + s * (1 / 3.0 + s * (1 / 5.0 + s * (1 / 7.0 + s * (1 / 9.0 + s / 11.0))));
  return exponent + 2.885390081777927 * t * sum;
}

/* Add the colour of one point: dark inside the set, a smooth palette outside. */
static void sample(double cx, double cy, int iterations, double sum[3]) {
  double x = 0, y = 0, xx = 0, yy = 0;
  int n = 0;
  while (n < iterations && xx + yy < ESCAPE) {
    y = 2 * x * y + cy;
    x = xx - yy + cx;
    xx = x * x;
    yy = y * y;
    n++;
  }
  if (xx + yy < ESCAPE) return;
  double smooth = n + 4 - log_2(log_2(xx + yy)); /* continuous across the rings of equal n */
  double turn = log_2(smooth < 1 ? 1 : smooth) / LEVELS_PER_TURN * COLOURS;
  int step = (int)turn;
  double part = turn - step, ease = part * part * (3 - 2 * part);
  const double *from = PALETTE[step % COLOURS], *to = PALETTE[(step + 1) % COLOURS];
  for (int k = 0; k < 3; k++) sum[k] += from[k] + (to[k] - from[k]) * ease;
}

int main(int argc, char **argv) {
  int column, row, tiles, size, iterations;
  double centre_x = DEFAULT_X, centre_y = DEFAULT_Y, width = DEFAULT_WIDTH;
  if ((argc != 6 && argc != 9) || !whole(argv[3], 1, 4096, &tiles) ||
      !whole(argv[1], 0, tiles - 1, &column) || !whole(argv[2], 0, tiles - 1, &row) ||
      !whole(argv[4], 1, MAX_SIZE, &size) || !whole(argv[5], 1, 1000000, &iterations))
    return 2;
  if (argc == 9 && (!number(argv[6], &centre_x) || !number(argv[7], &centre_y) ||
                    !number(argv[8], &width) || width <= 0))
    return 2;

  double side = (double)tiles * size * SAMPLES, step = width / side;
  double left = centre_x - width / 2 + step / 2, top = centre_y + width / 2 - step / 2;
  unsigned char *out = pixels;
  for (int py = 0; py < size; py++) {
    for (int px = 0; px < size; px++) {
      double sum[3] = {0, 0, 0};
      for (int s = 0; s < SAMPLES * SAMPLES; s++) {
        double sx = (double)(column * size + px) * SAMPLES + s % SAMPLES;
        double sy = (double)(row * size + py) * SAMPLES + s / SAMPLES;
        sample(left + sx * step, top - sy * step, iterations, sum);
      }
      for (int k = 0; k < 3; k++) *out++ = (unsigned char)(sum[k] / (SAMPLES * SAMPLES) + 0.5);
    }
  }
  for (const unsigned char *at = pixels; at < out;) {
    ssize_t written = write(1, at, out - at);
    if (written <= 0) return 1;
    at += written;
  }
  return 0;
}
