// Compiled once for each kind of processor, with VARIANT as the namespace and the compiler's flags for the rest.
#include "kernels.hpp"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "vectors.hpp"

namespace bertram::VARIANT {
namespace {

constexpr int kVectors = kPanel / kLanes;

// Rows of a tile, each with a panel's vectors of sums: about as many as registers hold beside weights and an input.
#if defined(__AVX512BW__)
constexpr int kTile = 12;
#elif defined(__AVX2__)
constexpr int kTile = 3;
#elif defined(__aarch64__)
constexpr int kTile = 2;
#else
constexpr int kTile = 1;
#endif

// Inputs whose weights are asked for before they are needed: the processor's own guesses leave a product waiting for the
// third cache.
constexpr int kAhead = 24;
constexpr int kLine = 16;  // numbers of 32 bits in a line of a cache

// Call f with tiles of kTile rows, then with one of what is left.
template <class F, int... R>
inline void last_tile(int rows, F&& f, int first, std::integer_sequence<int, R...>) {
    ((rows == R + 1 ? f(first, Count<R + 1>{}) : void()), ...);
}

template <class F>
inline void tiles(int first, int last, F&& f) {
    for (; first + kTile <= last; first += kTile) f(first, Count<kTile>{});
    if (first < last) last_tile(last - first, f, first, std::make_integer_sequence<int, kTile - 1>{});
}

// Of each 32 bits, the sum of two products of int16, where no instruction adds it at once; AVX-512 here has one.
#if !defined(__AVX512VNNI__) && !defined(__AVXVNNI__)
inline Ints pair_products(Ints x, Ints w) {
#if defined(__AVX2__)
    return (Ints)_mm256_madd_epi16((__m256i)x, (__m256i)w);
#elif defined(__x86_64__)
    return (Ints)_mm_madd_epi16((__m128i)x, (__m128i)w);
#else
    return (x << 16 >> 16) * (w << 16 >> 16) + (x >> 16) * (w >> 16);
#endif
}
#endif

// What a product is made of: each adds the products of its numbers to one sum, in the lanes of a vector.
struct Single {  // float
    static Floats add(Floats sums, Floats x, Floats w) { return sums + x * w; }
};

struct Pair {  // int16, two in 32 bits
    static Ints add(Ints sums, Ints x, Ints w) {
#if defined(__AVX512VNNI__)
        return (Ints)_mm512_dpwssd_epi32((__m512i)sums, (__m512i)x, (__m512i)w);
#elif defined(__AVXVNNI__)
        return (Ints)_mm256_dpwssd_avx_epi32((__m256i)sums, (__m256i)x, (__m256i)w);
#else
        return sums + pair_products(x, w);
#endif
    }
};

struct Four {  // unsigned bytes by signed ones, four in 32 bits
    static Ints add(Ints sums, Ints x, Ints w) {
#if defined(__AVX512VNNI__)
        return (Ints)_mm512_dpbusd_epi32((__m512i)sums, (__m512i)x, (__m512i)w);
#elif defined(__AVXVNNI__)
        return (Ints)_mm256_dpbusd_avx_epi32((__m256i)sums, (__m256i)x, (__m256i)w);
#else  // the one older instruction that multiplies such bytes saturates: the even and the odd ones as int16
        const Ints even = (Ints)((Shorts)(w << 8) >> 8), odd = (Ints)((Shorts)w >> 8);
        return sums + pair_products(x & 0x00ff00ff, even) + pair_products((Ints)((Shorts)(x >> 8) & 0xff), odd);
#endif
    }
};

// One by one, so that they stay in registers: for "= {}" the compiler clears memory and reads it back.
template <class Vector, int R, int V>
inline void clear(Vector (&sums)[R][V]) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) sums[r][v] = Vector{};
}

// Vectors of outputs lie `apart` from each other, those of an input and the next `step`.
template <class Of, class T, class Vector, int R, int V>
inline void tile_product(const T* rows, int stride, const T* weights, int apart, int step, int inputs,
                         Vector (&sums)[R][V]) {
    for (int k = 0; k < inputs; ++k, weights += step) {
        Vector w[V];
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
            w[v] = load(weights + v * apart);
            if (v * kLanes % kLine == 0) __builtin_prefetch(weights + v * apart + kAhead * step);
        }
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            T number;
            std::memcpy(&number, rows + r * stride + k, sizeof number);  // bytes may stand there
            const Vector x = splat(number);
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) sums[r][v] = Of::add(sums[r][v], x, w[v]);
        }
    }
}

// The values of a panel of outputs.
template <class T>
struct OfPanel {
    decltype(load(static_cast<const T*>(nullptr))) vectors[kVectors];

    explicit OfPanel(const T* from) {
        for (int v = 0; v < kVectors; ++v) vectors[v] = load(from + v * kLanes);
    }
};

void product(const Matrix& m, const Rows& in, int first_row, int last_row, int first_panel, int last_panel, float* out,
             int stride) {
    for (int p = first_panel; p < last_panel; ++p) {
        const int n = p * kPanel;
        const OfPanel bias(m.bias + n);
        if (!m.int8) {
            const float* panel = static_cast<const float*>(m.values) + static_cast<int64_t>(n) * m.inputs;
            tiles(first_row, last_row, [&](int row, auto tile) {
                constexpr int R = decltype(tile)::value;
                Floats sums[R][kVectors];
                for (auto& of_row : sums) std::copy(bias.vectors, bias.vectors + kVectors, of_row);
                tile_product<Single>(in.floats + static_cast<int64_t>(row) * in.stride, in.stride, panel, kLanes,
                                     kPanel, m.inputs, sums);
                for (int r = 0; r < R; ++r)
                    for (int v = 0; v < kVectors; ++v)
                        store(out + static_cast<int64_t>(row - first_row + r) * stride + n + v * kLanes, sums[r][v]);
            });
            continue;
        }
        const int groups = m.groups();
        const int32_t* panel = static_cast<const int32_t*>(m.values) + static_cast<int64_t>(n) * groups;
        const OfPanel scale(m.scale + n);
        const OfPanel weights(m.sums + n);
        tiles(first_row, last_row, [&](int row, auto tile) {
            constexpr int R = decltype(tile)::value;
            Ints sums[R][kVectors];
            clear(sums);
            const uint8_t* bytes = in.bytes + static_cast<int64_t>(row) * in.stride;
            tile_product<Four>(reinterpret_cast<const int32_t*>(bytes), in.stride / 4, panel, kLanes, kPanel, groups,
                               sums);
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
                for (int v = 0; v < kVectors; ++v) {
                    const Floats exact = to_floats(sums[r][v] - in.zero[row + r] * weights.vectors[v]);
                    store(out + static_cast<int64_t>(row - first_row + r) * stride + n + v * kLanes,
                          exact * (scale.vectors[v] * in.scale[row + r]) + bias.vectors[v]);
                }
        });
    }
}

// Bytes know no NaN: a row that holds one, or infinity, has a scale of NaN.
void quantize(const float* x, int n, uint8_t* bytes, float* scale, int32_t* zero) {
    Floats low = splat(0.0f), high = splat(0.0f);
    each(n, [&](int i, auto count) {
        const Floats some = load_some(x + i, count);
        low = least(low, some);
        high = most(high, some);
    });
    const float bottom = lowest(low);
    const float top = highest(high);
    const float step = top - bottom > 1e-30f ? (top - bottom) / 255.0f : 1.0f;  // less is 0, as its inverse is no number
    const int32_t origin = static_cast<int32_t>(std::min(255.0f, -bottom / step) + 0.5f);
    const float inverse = 1.0f / step, shift = static_cast<float>(origin) + 0.5f;
    Floats total = splat(0.0f);
    each(n, [&](int i, auto count) {
        const Floats shifted = load_some(x + i, count) * inverse + shift;
        total += shifted;
        const Ints whole = to_ints(least(most(shifted, splat(0.0f)), splat(255.0f)));
        const Bytes some = __builtin_convertvector(whole, Bytes);
        std::memcpy(bytes + i, &some, count);
    });
    *scale = step + 0.0f * sum(total);
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
            return replace_each(x, n, [](Floats v) { return most(splat(0.0f), v); });
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

// Keys [S, width] by vectors, turned so that those of one dimension stand together: the weights of a product.
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
template <int R, class Of, class T>
inline void weigh(const T* queries, int stride, const T* keys, int width, int tokens, int padded, float factor,
                  float* weights, float (&totals)[R]) {
    const auto score = [&](int s, auto vectors) {
        constexpr int V = decltype(vectors)::value;
        decltype(load(keys)) sums[R][V];
        clear(sums);
        tile_product<Of>(queries, stride, keys + static_cast<int64_t>(s) * width, width * kLanes, kLanes, width, sums);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) store(weights + r * padded + s + v * kLanes, to_floats(sums[r][v]));
    };
    int s = 0;
    for (; s + kPanel <= padded; s += kPanel) score(s, Count<kVectors>{});
    for (; s < padded; s += kLanes) score(s, Count<1>{});
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
template <int R, class Of, class T>
inline void mix(const T* weights, int padded, const T* values, int stride, int steps, int d, const float (&factors)[R],
                float* out, int out_stride) {
    const auto some = [&](int i, auto vectors) {
        constexpr int V = decltype(vectors)::value;
        decltype(load(values)) sums[R][V];
        clear(sums);
        tile_product<Of>(weights, padded, values + i, kLanes, stride, steps, sums);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v)
                store_some(out + static_cast<int64_t>(r) * out_stride + i + v * kLanes,
                           to_floats(sums[r][v]) * factors[r], d - i - v * kLanes);
    };
    int i = 0;
    for (; i + kPanel <= rounded_up(d); i += kPanel) some(i, Count<kVectors>{});
    for (; i < d; i += kLanes) some(i, Count<1>{});
}

void attend(const float* q, const float* k, const float* v, int stride, int tokens, int queries, int d, float* out,
            int out_stride, float* scratch) {
    const int padded = rounded_up(tokens);
    float *keys = scratch, *weights = keys + static_cast<int64_t>(padded) * d;
    turn_keys(tokens, d, keys, [&](int s, int i) { return load_some(k + static_cast<int64_t>(s) * stride + i, d - i); });
    const float factor = 1.0f / std::sqrt(static_cast<float>(d));
    tiles(0, queries, [&](int row, auto tile) {
        constexpr int R = decltype(tile)::value;
        float totals[R];
        weigh<R, Single>(q + static_cast<int64_t>(row) * stride, stride, keys, d, tokens, padded, factor, weights,
                         totals);
        for (float& total : totals) total = 1.0f / total;
        mix<R, Single>(weights, padded, v, stride, tokens, d, totals, out + static_cast<int64_t>(row) * out_stride,
                       out_stride);
    });
}

// Two numbers, times a factor and rounded to int16, in one of 32 bits.
inline Ints paired(Floats low, Floats high, float factor) {
    return ((Ints)(low * factor + kRounding) & 0xffff) | (Ints)(high * factor + kRounding) << 16;
}

// What the largest of some rows is to be multiplied by to become `limit`, 1 where that would be no number and all of them
// round to 0; NaN where one of them is not finite.
inline float factor_to(float limit, const float* x, int stride, int rows, int d) {
    Floats high = splat(0.0f), zeros = splat(0.0f);
    for (int row = 0; row < rows; ++row, x += stride)
        each(d, [&](int i, auto count) {
            const Floats some = load_some(x + i, count);
            high = most(high, most(some, -some));
            zeros += some * 0.0f;
        });
    const float peak = highest(high);
    return (peak > 1e-30f ? limit / peak : 1.0f) + sum(zeros);
}

// As `attend`, in products of int16, of which the processor does two at a time: an error below 1e-3, where int8 weights
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
                of_v = factor_to(4095.0f, v, stride, tokens, d);
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
    // Where all scores are next to 0 any number serves but 0, which makes NaN of the -INFINITY behind them.
    const float factor = std::max(1.0f / (std::sqrt(static_cast<float>(d)) * of_q) / of_k, FLT_MIN);
    tiles(0, queries, [&](int row, auto tile) {
        constexpr int R = decltype(tile)::value;
        for (int r = 0; r < R; ++r)
            for (int i = 0; i < width; i += kLanes)
                store(rows + r * wide + i, pair(q + static_cast<int64_t>(row + r) * stride, i, of_q));
        float totals[R];
        weigh<R, Pair>(rows, wide, keys, width, tokens, padded, factor, weights, totals);
        for (int r = 0; r < R; ++r) {
            // Rounding at most doubles what they add up to, and 2 · 262143 · 4095 is no overflow.
            const float of_w = std::min(32767.0f, 262143.0f / totals[r]);
            float* w = weights + r * padded;
            for (int t = 0; t < half; t += kLanes)
                store(w + t, (Floats)paired(load(w + t), load_some(w + half + t, padded - half - t), of_w));
            totals[r] = 1.0f / (of_w * totals[r] * of_v);
        }
        mix<R, Pair>(reinterpret_cast<const int32_t*>(weights), padded, values, deep, half, d, totals,
                     out + static_cast<int64_t>(row) * out_stride, out_stride);
    });
}

}  // namespace

#define NAME(variant) #variant
#define NAME_OF(variant) NAME(variant)
const Kernels kernels = {
    NAME_OF(VARIANT), product, quantize, activate, add, scale, normalize, look_up, attend, attend_int16,
};

}  // namespace bertram::VARIANT
