// Compiled once for each kind of processor, with VARIANT as the namespace and the compiler's flags for the rest.
#include "kernels.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "vectors.hpp"

namespace bertram::VARIANT {
namespace {

// Rows of a tile: with two vectors of sums each, as many as registers hold beside two of weights and one of inputs.
#if defined(__AVX512F__)
constexpr int kTile = 12;
#else
constexpr int kTile = 2;
#endif

// Bytes of weights that are asked for before they are needed: the processor's own guesses leave a product waiting for
// the third cache.
constexpr int kAhead = 24 * 4 * kPanel;

template <int R>
struct Tile {
    static constexpr int rows = R;
};

// Call f with tiles of kTile rows, then with one of what is left.
template <class F, int... R>
inline void last_tile(int rows, F&& f, int first, std::integer_sequence<int, R...>) {
    ((rows == R + 1 ? f(first, Tile<R + 1>{}) : void()), ...);
}

template <class F>
inline void tiles(int first, int last, F&& f) {
    for (; first + kTile <= last; first += kTile) f(first, Tile<kTile>{});
    if (first < last) last_tile(last - first, f, first, std::make_integer_sequence<int, kTile - 1>{});
}

inline Floats add_products(Floats sums, Floats x, Floats w) { return sums + x * w; }

#if defined(__AVX2__)

// Of pairs of int16, one in each half of 32 bits.
inline Ints add_products(Ints sums, Ints x, Ints w) {
#if defined(__AVX512VNNI__)
    return (Ints)_mm512_dpwssd_epi32((__m512i)sums, (__m512i)x, (__m512i)w);
#else
    __m256i s[2], a[2], b[2];
    std::memcpy(s, &sums, sizeof s), std::memcpy(a, &x, sizeof a), std::memcpy(b, &w, sizeof b);
    for (int half = 0; half < 2; ++half) {
#if defined(__AVXVNNI__)
        s[half] = _mm256_dpwssd_avx_epi32(s[half], a[half], b[half]);
#else
        s[half] = _mm256_add_epi32(s[half], _mm256_madd_epi16(a[half], b[half]));
#endif
    }
    std::memcpy(&sums, s, sizeof s);
    return sums;
#endif
}

#endif

// Vectors of outputs lie `apart` from each other, those of an input and the next `step`.
template <class T, class Vector, int R, int V>
inline void tile_product(const T* rows, int stride, const T* weights, int apart, int step, int inputs,
                         Vector (&sums)[R][V]) {
    for (int k = 0; k < inputs; ++k, weights += step) {
        Vector w[V];
        for (int v = 0; v < V; ++v) w[v] = load(weights + v * apart);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            const Vector x = splat(rows[r * stride + k]);
            for (int v = 0; v < V; ++v) sums[r][v] = add_products(sums[r][v], x, w[v]);
        }
    }
}

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)

#if defined(__AVX512VNNI__)
using Dots = __m512i;
inline Dots four_of_each(int32_t four) { return _mm512_set1_epi32(four); }
inline Dots add_dots(Dots sums, Dots x, Dots w) { return _mm512_dpbusd_epi32(sums, x, w); }
#else
using Dots = __m256i;
inline Dots four_of_each(int32_t four) { return _mm256_set1_epi32(four); }
inline Dots add_dots(Dots sums, Dots x, Dots w) { return _mm256_dpbusd_avx_epi32(sums, x, w); }
#endif

// Dot products of four unsigned and four signed bytes, in 32 bits. Vectors are copied one by one: a whole array of sums
// would be kept in memory.
template <int R>
inline void int8_tile(const uint8_t* rows, int stride, const int8_t* panel, int groups, Ints (&sums)[R][2]) {
    constexpr int V = 4 * kPanel / sizeof(Dots);
    Dots dots[R][V];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) dots[r][v] = Dots{};
    for (int k = 0; k < groups; ++k, panel += 4 * kPanel) {
        Dots w[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) std::memcpy(&w[v], panel + v * sizeof(Dots), sizeof(Dots));
        for (int line = 0; line < 2; ++line) __builtin_prefetch(panel + kAhead + 64 * line);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            int32_t four;
            std::memcpy(&four, rows + r * stride + 4 * k, 4);
            const Dots x = four_of_each(four);
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) dots[r][v] = add_dots(dots[r][v], x, w[v]);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v)
            std::memcpy(reinterpret_cast<char*>(&sums[r][0]) + v * sizeof(Dots), &dots[r][v], sizeof(Dots));
}

#elif defined(__AVX2__)

// Without dot products of bytes: the one instruction that multiplies unsigned by signed ones saturates, so both are
// widened to 16 bits first. Sums of two neighbours stay apart to the end.
template <int R>
inline void int8_tile(const uint8_t* rows, int stride, const int8_t* panel, int groups, Ints (&sums)[R][2]) {
    for (int r = 0; r < R; ++r) {
        __m256i halves[8] = {};
        const int8_t* w = panel;
        for (int k = 0; k < groups; ++k, w += 4 * kPanel) {
            int32_t four;
            std::memcpy(&four, rows + r * stride + 4 * k, 4);
            const __m256i x = _mm256_broadcastq_epi64(_mm_cvtepu8_epi16(_mm_cvtsi32_si128(four)));
#pragma GCC unroll 8
            for (int i = 0; i < 8; ++i) {
                const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(w + 16 * i));
                halves[i] = _mm256_add_epi32(halves[i], _mm256_madd_epi16(x, _mm256_cvtepi8_epi16(bytes)));
            }
        }
        int32_t out[kPanel];
        for (int i = 0; i < 8; ++i) {
            const __m256i twice = _mm256_hadd_epi32(halves[i], halves[i]);
            _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 4 * i),
                             _mm256_castsi256_si128(_mm256_permute4x64_epi64(twice, 0x08)));
        }
        std::memcpy(&sums[r][0], out, sizeof out);
    }
}

#else

template <int R>
inline void int8_tile(const uint8_t* rows, int stride, const int8_t* panel, int groups, Ints (&sums)[R][2]) {
    for (int r = 0; r < R; ++r) {
        int32_t out[kPanel] = {};
        for (int k = 0; k < groups; ++k)
            for (int n = 0; n < kPanel; ++n)
                for (int j = 0; j < 4; ++j) out[n] += rows[r * stride + 4 * k + j] * panel[(k * kPanel + n) * 4 + j];
        std::memcpy(&sums[r][0], out, sizeof out);
    }
}

#endif

void product(const Matrix& m, const Rows& in, int first_row, int last_row, int first_panel, int last_panel, float* out,
             int stride) {
    for (int p = first_panel; p < last_panel; ++p) {
        const int n = p * kPanel;
        const Floats bias[2] = {load(m.bias + n), load(m.bias + n + kLanes)};
        if (!m.int8) {
            const float* panel = static_cast<const float*>(m.values) + static_cast<int64_t>(n) * m.inputs;
            tiles(first_row, last_row, [&](int row, auto tile) {
                constexpr int R = decltype(tile)::rows;
                Floats sums[R][2];
                for (int r = 0; r < R; ++r) sums[r][0] = bias[0], sums[r][1] = bias[1];
                tile_product(in.floats + static_cast<int64_t>(row) * in.stride, in.stride, panel, kLanes, kPanel,
                             m.inputs, sums);
                for (int r = 0; r < R; ++r) {
                    float* to = out + static_cast<int64_t>(row - first_row + r) * stride + n;
                    store(to, sums[r][0]);
                    store(to + kLanes, sums[r][1]);
                }
            });
            continue;
        }
        const int groups = m.groups();
        const int8_t* panel = static_cast<const int8_t*>(m.values) + static_cast<int64_t>(n) * 4 * groups;
        const Floats scale[2] = {load(m.scale + n), load(m.scale + n + kLanes)};
        Ints weights[2];
        std::memcpy(weights, m.sums + n, sizeof weights);
        tiles(first_row, last_row, [&](int row, auto tile) {
            constexpr int R = decltype(tile)::rows;
            Ints sums[R][2];
            int8_tile<R>(in.bytes + static_cast<int64_t>(row) * in.stride, in.stride, panel, groups, sums);
            for (int r = 0; r < R; ++r) {
                float* to = out + static_cast<int64_t>(row - first_row + r) * stride + n;
                for (int half = 0; half < 2; ++half) {
                    const Floats exact = to_floats(sums[r][half] - in.zero[row + r] * weights[half]);
                    store(to + half * kLanes, exact * (scale[half] * in.scale[row + r]) + bias[half]);
                }
            }
        });
    }
}

void quantize(const float* x, int n, uint8_t* bytes, float* scale, int32_t* zero) {
    Floats low = splat(0.0f), high = splat(0.0f);
    each(n, [&](int i, auto count) {
        const Floats some = load_some(x + i, count);
        low = least(low, some);
        high = most(high, some);
    });
    const float bottom = lowest(low);
    const float top = highest(high);
    const float step = top > bottom ? (top - bottom) / 255.0f : 1.0f;
    const int32_t origin = static_cast<int32_t>(-bottom / step + 0.5f);
    const float inverse = 1.0f / step, shift = static_cast<float>(origin) + 0.5f;
    each(n, [&](int i, auto count) {
        const Floats shifted = load_some(x + i, count) * inverse + shift;
        const Ints whole = to_ints(least(most(shifted, splat(0.0f)), splat(255.0f)));
        const Bytes some = __builtin_convertvector(whole, Bytes);
        std::memcpy(bytes + i, &some, count);
    });
    *scale = step;
    *zero = origin;
}

void activate(Activation activation, float* x, int n) {
    switch (activation) {
        case Activation::none:
            return;
        case Activation::gelu:
            return replace_each(x, n, [](Floats v) { return 0.5f * v * (1.0f + erf(v * 0.707106781f)); });
        case Activation::gelu_tanh:
            return replace_each(x, n, [](Floats v) {
                return v / (1.0f + exp(v * (v * v * -0.0713548163f - 1.59576912f)));  // tanh by its exponential
            });
        case Activation::relu:
            return replace_each(x, n, [](Floats v) { return most(v, splat(0.0f)); });
        case Activation::silu:
            return replace_each(x, n, [](Floats v) { return v / (1.0f + exp(-v)); });
        case Activation::tanh:
            return replace_each(x, n, [](Floats v) { return tanh(v); });
    }
}

void add(float* x, const float* y, int n) {
    each(n, [&](int i, auto count) { store_some(x + i, load_some(x + i, count) + load_some(y + i, count), count); });
}

void scale(float* x, float factor, int n) {
    replace_each(x, n, [&](Floats v) { return v * factor; });
}

void normalize(const float* x, int n, const float* weight, const float* bias, float epsilon, float* out) {
    Floats total = splat(0.0f), squares = splat(0.0f);
    each(n, [&](int i, auto count) { total += load_some(x + i, count); });
    const float mean = sum(total) / n;
    each(n, [&](int i, auto count) {
        const Floats off = load_some(x + i, count, mean) - mean;
        squares += off * off;
    });
    const float inverse = 1.0f / std::sqrt(sum(squares) / n + epsilon);
    each(n, [&](int i, auto count) {
        const Floats scaled = (load_some(x + i, count) - mean) * inverse * load_some(weight + i, count);
        store_some(out + i, scaled + load_some(bias + i, count), count);
    });
}

void look_up(const Matrix& table, int row, float* out) {
    const int panel = row / kPanel, place = row % kPanel;
    if (table.int8) {
        const int8_t* from = static_cast<const int8_t*>(table.values) +
                             static_cast<int64_t>(panel) * table.groups() * 4 * kPanel + 4 * place;
        for (int k = 0; k < table.inputs; ++k) out[k] += table.scale[row] * from[k / 4 * 4 * kPanel + k % 4];
    } else {
        const float* from =
            static_cast<const float*>(table.values) + static_cast<int64_t>(panel) * table.inputs * kPanel + place;
        for (int k = 0; k < table.inputs; ++k) out[k] += from[k * kPanel];
    }
}

// Keys [S, width] by sixteens, turned so that those of one dimension stand together: the weights of a product.
// `read(s, i)` is a vector of the key s from its dimension i on.
template <class Read>
inline void turn_keys(int tokens, int width, float* keys, Read&& read) {
    for (int s = 0; s < tokens; s += kLanes)
        for (int i = 0; i < width; i += kLanes) {
            Floats square[kLanes];
            for (int r = 0; r < kLanes; ++r) square[r] = s + r < tokens ? read(s + r, i) : splat(0.0f);
            transpose(square);
            for (int c = 0; c < std::min(kLanes, width - i); ++c)
                store(keys + static_cast<int64_t>(s) * width + (i + c) * kLanes, square[c]);
        }
}

// exp(factor · (score - the row's highest)) of a tile of queries [R, width] and all keys, [R, padded]; of each row the
// total. The scores are a product with the keys as its weights.
template <int R, class T>
inline void weigh(const T* queries, int stride, const T* keys, int width, int tokens, int padded, float factor,
                  float* weights, float (&totals)[R]) {
    const auto score = [&](int s, auto vectors) {
        constexpr int V = decltype(vectors)::rows;
        decltype(load(keys)) sums[R][V] = {};
        tile_product(queries, stride, keys + static_cast<int64_t>(s) * width, width * kLanes, kLanes, width, sums);
        for (int r = 0; r < R; ++r)
            for (int v = 0; v < V; ++v) store(weights + r * padded + s + v * kLanes, to_floats(sums[r][v]));
    };
    int s = 0;
    for (; s + 2 * kLanes <= padded; s += 2 * kLanes) score(s, Tile<2>{});
    if (s < padded) score(s, Tile<1>{});
    for (int r = 0; r < R; ++r) {
        float* w = weights + r * padded;
        std::fill(w + tokens, w + padded, -INFINITY);
        Floats high = load(w);
        for (s = kLanes; s < padded; s += kLanes) high = most(high, load(w + s));
        const float peak = highest(high);
        Floats total = splat(0.0f);
        for (s = 0; s < padded; s += kLanes) {
            const Floats e = exp((load(w + s) - peak) * factor);
            store(w + s, e);
            total += e;
        }
        totals[r] = sum(total);  // with 1e-38 for what is no token
    }
}

// A tile's product with the values [steps, d] as its weights, each row times its factor.
template <int R, class T>
inline void mix(const T* weights, int padded, const T* values, int stride, int steps, int d, const float (&factors)[R],
                float* out, int out_stride) {
    const auto some = [&](int i, auto vectors) {
        constexpr int V = decltype(vectors)::rows;
        decltype(load(values)) sums[R][V] = {};
        tile_product(weights, padded, values + i, kLanes, stride, steps, sums);
        for (int r = 0; r < R; ++r)
            for (int v = 0; v < V; ++v)
                store_some(out + static_cast<int64_t>(r) * out_stride + i + v * kLanes,
                           to_floats(sums[r][v]) * factors[r], d - i - v * kLanes);
    };
    int i = 0;
    for (; i + kLanes < d; i += 2 * kLanes) some(i, Tile<2>{});
    if (i < d) some(i, Tile<1>{});
}

void attend(const float* q, const float* k, const float* v, int stride, int tokens, int queries, int d, float* out,
            int out_stride, float* scratch) {
    const int padded = rounded_up(tokens);
    float *keys = scratch, *weights = keys + static_cast<int64_t>(padded) * d;
    turn_keys(tokens, d, keys, [&](int s, int i) { return load_some(k + static_cast<int64_t>(s) * stride + i, d - i); });
    const float factor = 1.0f / std::sqrt(static_cast<float>(d));
    tiles(0, queries, [&](int row, auto tile) {
        constexpr int R = decltype(tile)::rows;
        float totals[R];
        weigh<R>(q + static_cast<int64_t>(row) * stride, stride, keys, d, tokens, padded, factor, weights, totals);
        for (float& total : totals) total = 1.0f / total;
        mix<R>(weights, padded, v, stride, tokens, d, totals, out + static_cast<int64_t>(row) * out_stride, out_stride);
    });
}

#if defined(__AVX2__)

// Two numbers rounded to int16, in one number of 32 bits: to add 1.5 · 2^23 leaves whole numbers in the lowest bits.
inline Ints paired(Floats low, Floats high, float factor) {
    constexpr float shift = 12582912.0f;
    return ((Ints)(low * factor + shift) & 0xffff) | (Ints)(high * factor + shift) << 16;
}

// What the largest of some rows is to be multiplied by to become `limit`.
inline float factor_to(float limit, const float* x, int stride, int rows, int d) {
    Floats high = splat(0.0f);
    for (int row = 0; row < rows; ++row, x += stride)
        each(d, [&](int i, auto count) {
            const Floats some = load_some(x + i, count);
            high = most(high, most(some, -some));
        });
    const float peak = highest(high);
    return peak > 0.0f ? limit / peak : 0.0f;
}

// As `attend`, in products of int16, of which the processor does two at a time: an error of 1e-4, where int8 weights
// make one of 1e-2. Whatever is multiplied is paired with what stands half of the sum away.
void attend_int16(const float* q, const float* k, const float* v, int stride, int tokens, int queries, int d,
                  float* out, int out_stride, float* scratch) {
    const int padded = rounded_up(tokens), half = (tokens + 1) / 2, width = (d + 1) / 2, wide = rounded_up(width),
              deep = rounded_up(d);
    int32_t *keys = reinterpret_cast<int32_t*>(scratch), *values = keys + static_cast<int64_t>(padded) * width,
            *rows = values + static_cast<int64_t>(half) * deep;
    float* weights = reinterpret_cast<float*>(rows + kTile * wide);
    const float limit = std::min(32767.0f, std::sqrt(2147483648.0f / d) - 1.0f);  // that no sum of d products overflows
    const float of_q = factor_to(limit, q, stride, queries, d), of_k = factor_to(limit, k, stride, tokens, d),
                of_v = factor_to(32767.0f, v, stride, tokens, d);
    const auto pair = [&](const float* x, int i, float factor) {
        return paired(load_some(x + i, width - i), load_some(x + width + i, d - width - i), factor);
    };
    turn_keys(tokens, width, reinterpret_cast<float*>(keys), [&](int s, int i) {
        return (Floats)pair(k + static_cast<int64_t>(s) * stride, i, of_k);
    });
    for (int t = 0; t < half; ++t)
        for (int i = 0; i < d; i += kLanes) {
            const float* low = v + static_cast<int64_t>(t) * stride + i;
            const Floats high = half + t < tokens ? load_some(low + static_cast<int64_t>(half) * stride, d - i)
                                                  : splat(0.0f);
            store(values + static_cast<int64_t>(t) * deep + i, paired(load_some(low, d - i), high, of_v));
        }
    const float factor = of_q > 0.0f && of_k > 0.0f ? 1.0f / (std::sqrt(static_cast<float>(d)) * of_q * of_k) : 0.0f;
    tiles(0, queries, [&](int row, auto tile) {
        constexpr int R = decltype(tile)::rows;
        for (int r = 0; r < R; ++r)
            for (int i = 0; i < width; i += kLanes)
                store(rows + r * wide + i, pair(q + static_cast<int64_t>(row + r) * stride, i, of_q));
        float totals[R];
        weigh<R>(rows, wide, keys, width, tokens, padded, factor, weights, totals);
        for (int r = 0; r < R; ++r) {  // probabilities, which add up to 1: no sum of their products overflows
            float* w = weights + r * padded;
            for (int t = 0; t < half; t += kLanes)
                store(w + t, (Floats)paired(load(w + t), load_some(w + half + t, padded - half - t),
                                            32767.0f / totals[r]));
            totals[r] = of_v > 0.0f ? 1.0f / (32767.0f * of_v) : 0.0f;
        }
        mix<R>(reinterpret_cast<const int32_t*>(weights), padded, values, deep, half, d, totals,
               out + static_cast<int64_t>(row) * out_stride, out_stride);
    });
}

#else

constexpr auto attend_int16 = attend;  // which is as fast without dot products of int16

#endif

}  // namespace

#define NAME(variant) #variant
#define NAME_OF(variant) NAME(variant)
const Kernels kernels = {
    NAME_OF(VARIANT), product, quantize, activate, add, scale, normalize, look_up, attend, attend_int16,
};

}  // namespace bertram::VARIANT
