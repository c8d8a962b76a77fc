/* AugMix in plain C: what one core can do without any framework.

   Same semantics as the TensorFlow pipeline it is measured against: pad-4 crop and flip, the
   clean view and two augmented views, operations equal to Pillow, normalised float output.
   Images are uint8 HWC with three channels; operations are numbered as in
   augmix_tf.ops.OPERATIONS. pipeline.py builds this file and calls it. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define CHANNELS 3
#define WIDTH 3
#define MAX_DEPTH 3

enum { AUTOCONTRAST, EQUALIZE, POSTERIZE, ROTATE, SOLARIZE, SHEAR_X, SHEAR_Y, TRANSLATE_X,
       TRANSLATE_Y, OPERATIONS };

static void lookup(const uint8_t *in, uint8_t *out, int pixels, uint8_t table[CHANNELS][256]) {
    for (int i = 0; i < pixels; i++)
        for (int c = 0; c < CHANNELS; c++)
            out[CHANNELS * i + c] = table[c][in[CHANNELS * i + c]];
}

static void autocontrast(const uint8_t *in, uint8_t *out, int pixels) {
    uint8_t table[CHANNELS][256];
    int low[CHANNELS] = {255, 255, 255}, high[CHANNELS] = {0, 0, 0};
    for (int i = 0; i < pixels; i++)
        for (int c = 0; c < CHANNELS; c++) {
            int v = in[CHANNELS * i + c];
            low[c] = v < low[c] ? v : low[c];
            high[c] = v > high[c] ? v : high[c];
        }
    for (int c = 0; c < CHANNELS; c++) {
        double scale = 255.0 / (high[c] - low[c]), offset = -low[c] * scale;
        for (int v = 0; v < 256; v++) {
            int t = high[c] <= low[c] ? v : (int)(v * scale + offset);
            table[c][v] = t < 0 ? 0 : t > 255 ? 255 : t;
        }
    }
    lookup(in, out, pixels, table);
}

static void equalize(const uint8_t *in, uint8_t *out, int pixels) {
    uint8_t table[CHANNELS][256];
    int counts[CHANNELS][256] = {{0}};
    for (int i = 0; i < pixels; i++)
        for (int c = 0; c < CHANNELS; c++)
            counts[c][in[CHANNELS * i + c]]++;
    for (int c = 0; c < CHANNELS; c++) {
        int last = 255;
        while (counts[c][last] == 0) last--;
        int step = (pixels - counts[c][last]) / 255, running = step / 2;
        for (int v = 0; v < 256; v++) {
            int t = step ? running / step : v;
            table[c][v] = t > 255 ? 255 : t;
            running += counts[c][v];
        }
    }
    lookup(in, out, pixels, table);
}

static void posterize(const uint8_t *in, uint8_t *out, int pixels, int bits) {
    uint8_t mask = (uint8_t)(0xff00 >> bits);
    for (int i = 0; i < CHANNELS * pixels; i++) out[i] = in[i] & mask;
}

static void solarize(const uint8_t *in, uint8_t *out, int pixels, int threshold) {
    for (int i = 0; i < CHANNELS * pixels; i++) out[i] = in[i] < threshold ? in[i] : 255 - in[i];
}

static int clamp(int v, int top) { return v < 0 ? 0 : v > top ? top : v; }

static void affine(const uint8_t *in, uint8_t *out, int h, int w, const double m[6]) {
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++, out += CHANNELS) {
            double u = m[0] * (x + 0.5) + m[1] * (y + 0.5) + m[2];
            double v = m[3] * (x + 0.5) + m[4] * (y + 0.5) + m[5];
            if (u < 0 || u >= w || v < 0 || v >= h) {
                memset(out, 0, CHANNELS);
                continue;
            }
            u -= 0.5, v -= 0.5;
            int x0 = (int)floor(u), y0 = (int)floor(v);
            double dx = u - x0, dy = v - y0;
            int left = CHANNELS * clamp(x0, w - 1), right = CHANNELS * clamp(x0 + 1, w - 1);
            const uint8_t *upper = in + CHANNELS * w * clamp(y0, h - 1);
            const uint8_t *lower = in + CHANNELS * w * clamp(y0 + 1, h - 1);
            for (int c = 0; c < CHANNELS; c++) {
                double top = upper[left + c] + (upper[right + c] - upper[left + c]) * dx;
                double bottom = lower[left + c] + (lower[right + c] - lower[left + c]) * dx;
                out[c] = (uint8_t)(top + (bottom - top) * dy);
            }
        }
}

static void rotate(const uint8_t *in, uint8_t *out, int h, int w, double degrees) {
    if (degrees == 0) {
        memcpy(out, in, (size_t)h * w * CHANNELS);
        return;
    }
    /* Pillow: the angle modulo 360, negated, sine and cosine rounded to 15 digits. */
    double a = -(degrees - 360.0 * floor(degrees / 360.0)) * (M_PI / 180.0);
    double cosine = round(cos(a) * 1e15) / 1e15, sine = round(sin(a) * 1e15) / 1e15;
    double cx = w / 2.0, cy = h / 2.0;
    double m[6] = {cosine, sine, cosine * -cx + sine * -cy + 0.0 + cx,
                   -sine, cosine, -sine * -cx + cosine * -cy + 0.0 + cy};
    affine(in, out, h, w, m);
}

static void translate(const uint8_t *in, uint8_t *out, int h, int w, int dx, int dy) {
    memset(out, 0, (size_t)h * w * CHANNELS);
    int x_from = dx > 0 ? 0 : -dx, x_to = dx > 0 ? w - dx : w;
    for (int y = 0; y < h; y++)
        if (y + dy >= 0 && y + dy < h && x_to > x_from)
            memcpy(out + CHANNELS * (y * w + x_from), in + CHANNELS * ((y + dy) * w + x_from + dx),
                   (size_t)CHANNELS * (x_to - x_from));
}

static void apply_op(int op, double p, const uint8_t *in, uint8_t *out, int h, int w) {
    switch (op) {
    case AUTOCONTRAST: autocontrast(in, out, h * w); break;
    case EQUALIZE: equalize(in, out, h * w); break;
    case POSTERIZE: posterize(in, out, h * w, (int)p); break;
    case ROTATE: rotate(in, out, h, w, p); break;
    case SOLARIZE: solarize(in, out, h * w, (int)p); break;
    case SHEAR_X: affine(in, out, h, w, (double[]){1, p, 0, 0, 1, 0}); break;
    case SHEAR_Y: affine(in, out, h, w, (double[]){1, 0, 0, p, 1, 0}); break;
    case TRANSLATE_X: translate(in, out, h, w, (int)p, 0); break;
    case TRANSLATE_Y: translate(in, out, h, w, 0, (int)p); break;
    }
}

/* One view on the scale 0 to 255: (1 - share) x + share * sum_i weight_i chain_i(x). */
static void mix_view(const uint8_t *image, int h, int w, const int32_t *op, const double *param,
                     const int32_t *depth, const float *weight, float share, uint8_t *scratch,
                     float *out) {
    size_t size = (size_t)h * w * CHANNELS;
    memset(out, 0, size * sizeof(float));
    for (int k = 0; k < WIDTH; k++) {
        const uint8_t *from = image;
        for (int d = 0; d < depth[k]; d++) {
            uint8_t *to = scratch + (d % 2) * size;
            apply_op(op[k * MAX_DEPTH + d], param[k * MAX_DEPTH + d], from, to, h, w);
            from = to;
        }
        for (size_t i = 0; i < size; i++) out[i] += weight[k] * from[i];
    }
    for (size_t i = 0; i < size; i++) out[i] = (1 - share) * image[i] + share * out[i];
}

/* Applies a given plan to n images; the check that both sides mean the same. */
void apply_plan(const uint8_t *images, int n, int h, int w, const int32_t *op, const double *param,
                const int32_t *depth, const float *weight, const float *share, float *out) {
    size_t size = (size_t)h * w * CHANNELS;
    uint8_t *scratch = malloc(2 * size);
    for (int i = 0; i < n; i++)
        mix_view(images + i * size, h, w, op + i * WIDTH * MAX_DEPTH,
                 param + i * WIDTH * MAX_DEPTH, depth + i * WIDTH, weight + i * WIDTH, share[i],
                 scratch, out + i * size);
    free(scratch);
}

static uint64_t next(uint64_t *state) {
    *state ^= *state << 13, *state ^= *state >> 7, *state ^= *state << 17;
    return *state;
}
static double uniform(uint64_t *s) { return (next(s) >> 11) * 0x1p-53; }

static double draw_param(int op, double severity, int h, int w, uint64_t *s) {
    double level = 0.1 + uniform(s) * (severity - 0.1), sign = uniform(s) < 0.5 ? -1 : 1;
    switch (op) {
    case POSTERIZE: return 4 - (int)(level * 4 / 10);
    case ROTATE: return sign * (int)(level * 30 / 10);
    case SOLARIZE: return 256 - (int)(level * 256 / 10);
    case SHEAR_X: case SHEAR_Y: return sign * level * 0.3 / 10;
    case TRANSLATE_X: return sign * (int)(level * (w / 3.0) / 10);
    case TRANSLATE_Y: return sign * (int)(level * (h / 3.0) / 10);
    default: return 0;
    }
}

static void crop_and_flip(const uint8_t *in, uint8_t *out, int h, int w, uint64_t *s) {
    int dy = (int)(next(s) % 9) - 4, dx = (int)(next(s) % 9) - 4, flip = next(s) & 1;
    memset(out, 0, (size_t)h * w * CHANNELS);
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            int row = y + dy, column = x + dx;
            if (row < 0 || row >= h || column < 0 || column >= w) continue;
            if (flip) column = w - 1 - column;
            memcpy(out + CHANNELS * (y * w + x), in + CHANNELS * (row * w + column), CHANNELS);
        }
}

/* The whole job for n images: out is float [n, 3, h, w, c], normalised to -1..1. */
void run(const uint8_t *images, int n, int h, int w, double severity, uint64_t seed, float *out) {
    size_t size = (size_t)h * w * CHANNELS;
    uint8_t *image = malloc(3 * size);
    uint64_t s = seed * 2654435769u + 88172645463325252u;
    for (int i = 0; i < n; i++, out += 3 * size) {
        crop_and_flip(images + i * size, image, h, w, &s);
        for (size_t j = 0; j < size; j++) out[j] = image[j];
        for (int view = 1; view < 3; view++) {
            int32_t op[WIDTH * MAX_DEPTH], depth[WIDTH];
            double param[WIDTH * MAX_DEPTH];
            float weight[WIDTH], total = 0;
            for (int k = 0; k < WIDTH; k++) {
                depth[k] = 1 + (int)(next(&s) % MAX_DEPTH);
                total += weight[k] = (float)-log(1 - uniform(&s)); /* Gamma(1) */
                for (int d = 0; d < depth[k]; d++) {
                    op[k * MAX_DEPTH + d] = (int32_t)(next(&s) % OPERATIONS);
                    param[k * MAX_DEPTH + d] =
                        draw_param(op[k * MAX_DEPTH + d], severity, h, w, &s);
                }
            }
            for (int k = 0; k < WIDTH; k++) weight[k] /= total;
            mix_view(image, h, w, op, param, depth, weight, (float)uniform(&s), image + size,
                     out + view * size);
        }
        for (size_t j = 0; j < 3 * size; j++) out[j] = (out[j] / 255 - 0.5f) / 0.5f;
    }
    free(image);
}
