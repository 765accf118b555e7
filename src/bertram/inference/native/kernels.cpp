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

// Vectors of outputs lie `apart` from each other, those of an input and the next `step`.
template <int R, int V>
inline void float_tile(const float* rows, int stride, const float* weights, int apart, int step, int inputs,
                       Floats (&sums)[R][V]) {
    for (int k = 0; k < inputs; ++k, weights += step) {
        Floats w[V];
        for (int v = 0; v < V; ++v) w[v] = load(weights + v * apart);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            const Floats x = splat(rows[r * stride + k]);
            for (int v = 0; v < V; ++v) sums[r][v] += x * w[v];
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
                float_tile(in.floats + static_cast<int64_t>(row) * in.stride, in.stride, panel, kLanes, kPanel,
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
    int i = 0;
    for (; i + kLanes <= n; i += kLanes) {
        low = least(low, load(x + i));
        high = most(high, load(x + i));
    }
    if (i < n) {
        const Floats last = load_some(x + i, n - i, 0.0f);
        low = least(low, last);
        high = most(high, last);
    }
    const float bottom = lowest(low);
    const float top = highest(high);
    const float step = top > bottom ? (top - bottom) / 255.0f : 1.0f;
    const int32_t origin = static_cast<int32_t>(-bottom / step + 0.5f);
    const float inverse = 1.0f / step, shift = static_cast<float>(origin) + 0.5f;
    const auto rounded = [&](Floats values) {
        const Ints whole = to_ints(least(most(values * inverse + shift, splat(0.0f)), splat(255.0f)));
        return __builtin_convertvector(whole, Bytes);
    };
    for (i = 0; i + kLanes <= n; i += kLanes) *reinterpret_cast<Bytes*>(bytes + i) = rounded(load(x + i));
    if (i < n) {
        const Bytes last = rounded(load_some(x + i, n - i, 0.0f));
        std::memcpy(bytes + i, &last, n - i);
    }
    *scale = step;
    *zero = origin;
}

void activate(Activation activation, float* x, int n) {
    switch (activation) {
        case Activation::none:
            return;
        case Activation::gelu:
            return each(x, n, [](Floats v, int) { return 0.5f * v * (1.0f + erf(v * 0.707106781f)); });
        case Activation::gelu_tanh:
            return each(x, n, [](Floats v, int) {
                return v / (1.0f + exp(v * (v * v * -0.0713548163f - 1.59576912f)));  // tanh by its exponential
            });
        case Activation::relu:
            return each(x, n, [](Floats v, int) { return most(v, splat(0.0f)); });
        case Activation::silu:
            return each(x, n, [](Floats v, int) { return v / (1.0f + exp(-v)); });
        case Activation::tanh:
            return each(x, n, [](Floats v, int) { return tanh(v); });
    }
}

void add(float* x, const float* y, int n) {
    each(x, n, [&](Floats v, int i) { return v + (i + kLanes <= n ? load(y + i) : load_some(y + i, n - i, 0.0f)); });
}

void scale(float* x, float factor, int n) {
    each(x, n, [&](Floats v, int) { return v * factor; });
}

void normalize(const float* x, int n, const float* weight, const float* bias, float epsilon, float* out) {
    const int whole = n / kLanes * kLanes;
    Floats total = whole < n ? load_some(x + whole, n - whole, 0.0f) : splat(0.0f);
    for (int i = 0; i < whole; i += kLanes) total += load(x + i);
    const float mean = sum(total) / n;
    Floats squares = splat(0.0f);
    for (int i = 0; i < whole; i += kLanes) {
        const Floats off = load(x + i) - mean;
        squares += off * off;
    }
    if (whole < n) {
        const Floats off = load_some(x + whole, n - whole, mean) - mean;
        squares += off * off;
    }
    const float inverse = 1.0f / std::sqrt(sum(squares) / n + epsilon);
    if (out != x) std::copy(x, x + n, out);
    each(out, n, [&](Floats v, int i) {
        const bool all = i + kLanes <= n;
        const Floats w = all ? load(weight + i) : load_some(weight + i, n - i, 0.0f);
        const Floats b = all ? load(bias + i) : load_some(bias + i, n - i, 0.0f);
        return (v - mean) * inverse * w + b;
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

// Keys by sixteens, turned so that those of one dimension stand together: the weights of a product.
void turn_keys(const float* k, int stride, int tokens, int d, float* keys) {
    for (int s = 0; s < tokens; s += kLanes)
        for (int i = 0; i < d; i += kLanes) {
            const int rows = std::min(kLanes, tokens - s), columns = std::min(kLanes, d - i);
            Floats square[kLanes];
            for (int r = 0; r < kLanes; ++r) {
                const float* from = k + static_cast<int64_t>(s + r) * stride + i;
                square[r] = r >= rows ? splat(0.0f) : columns == kLanes ? load(from) : load_some(from, columns, 0.0f);
            }
            transpose(square);
            for (int c = 0; c < columns; ++c) store(keys + static_cast<int64_t>(s) * d + (i + c) * kLanes, square[c]);
        }
}

// The scores are a product of a few queries with the keys as its weights, the mixing one with the values as theirs.
void attend(const float* q, const float* k, const float* v, int stride, int tokens, int queries, int d, float* out,
            int out_stride, float* scratch) {
    const int padded = (tokens + kLanes - 1) / kLanes * kLanes;
    float *keys = scratch, *weights = keys + static_cast<int64_t>(padded) * d;
    turn_keys(k, stride, tokens, d, keys);
    const float factor = 1.0f / std::sqrt(static_cast<float>(d));
    tiles(0, queries, [&](int row, auto tile) {
        constexpr int R = decltype(tile)::rows;
        const float* rows = q + static_cast<int64_t>(row) * stride;
        const auto score = [&](int s, auto vectors) {
            constexpr int V = decltype(vectors)::rows;
            Floats sums[R][V] = {};
            float_tile(rows, stride, keys + static_cast<int64_t>(s) * d, d * kLanes, kLanes, d, sums);
            for (int r = 0; r < R; ++r)
                for (int v = 0; v < V; ++v) store(weights + r * padded + s + v * kLanes, sums[r][v]);
        };
        int s = 0;
        for (; s + 2 * kLanes <= padded; s += 2 * kLanes) score(s, Tile<2>{});
        if (s < padded) score(s, Tile<1>{});
        float totals[R];
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
        const auto mix = [&](int i, auto vectors) {
            constexpr int V = decltype(vectors)::rows;
            Floats sums[R][V] = {};
            float_tile(weights, padded, v + i, kLanes, stride, tokens, sums);
            for (int r = 0; r < R; ++r)
                for (int v = 0; v < V; ++v) {
                    const Floats mixed = sums[r][v] / totals[r];
                    float* to = out + static_cast<int64_t>(row + r) * out_stride + i + v * kLanes;
                    const int n = d - i - v * kLanes;
                    if (n >= kLanes)
                        store(to, mixed);
                    else
                        std::memcpy(to, &mixed, n * sizeof(float));
                }
        };
        int i = 0;
        for (; i + kLanes < d; i += 2 * kLanes) mix(i, Tile<2>{});
        if (i < d) mix(i, Tile<1>{});
    });
}

}  // namespace

#define NAME(variant) #variant
#define NAME_OF(variant) NAME(variant)
const Kernels kernels = {
    NAME_OF(VARIANT), product, quantize, activate, add, scale, normalize, look_up, attend,
};

}  // namespace bertram::VARIANT
