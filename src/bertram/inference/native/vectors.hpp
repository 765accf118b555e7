// As many floats as a register holds at a time, in the compiler's own vectors.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

namespace bertram::VARIANT {

#if defined(__AVX512BW__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef int32_t Ints __attribute__((vector_size(4 * kLanes)));
typedef int16_t Shorts __attribute__((vector_size(4 * kLanes)));
typedef uint8_t Bytes __attribute__((vector_size(kLanes)));

template <int N>
using Count = std::integral_constant<int, N>;

inline int rounded_up(int n) { return (n + kLanes - 1) / kLanes * kLanes; }

// Copied, as what stands in memory is not aligned, and may have been written as another type.
template <class Vector, class T>
inline Vector loaded(const T* p) {
    Vector x;
    std::memcpy(&x, p, sizeof x);
    return x;
}

inline Floats load(const float* p) { return loaded<Floats>(p); }
inline Ints load(const int32_t* p) { return loaded<Ints>(p); }
inline void store(float* p, Floats x) { std::memcpy(p, &x, sizeof x); }
inline void store(int32_t* p, Ints x) { std::memcpy(p, &x, sizeof x); }
inline Floats splat(float x) { return x - Floats{}; }
inline Ints splat(int32_t x) { return x - Ints{}; }
inline Floats to_floats(Floats x) { return x; }
inline Floats to_floats(Ints x) { return __builtin_convertvector(x, Floats); }
inline Ints to_ints(Floats x) { return __builtin_convertvector(x, Ints); }

// Of a NaN and a number the second: a bound that stands first lets NaN through.
inline Floats least(Floats a, Floats b) { return a < b ? a : b; }
inline Floats most(Floats a, Floats b) { return a > b ? a : b; }

// A vector's numbers, or the first n if those are fewer.
inline Floats load_some(const float* p, int n, float rest = 0.0f) {
    if (n >= kLanes) return load(p);
    Floats x = splat(rest);
    if (n > 0) std::memcpy(&x, p, n * sizeof(float));
    return x;
}

inline void store_some(float* p, Floats x, int n) {
    if (n >= kLanes)
        store(p, x);
    else
        std::memcpy(p, &x, n * sizeof(float));
}

using Lanes = std::make_integer_sequence<int, kLanes>;

template <int By, int... Lane>
inline Floats rotated(Floats x, std::integer_sequence<int, Lane...>) {
    return __builtin_shufflevector(x, x, ((Lane + By) % kLanes)...);
}

template <int By = kLanes / 2, class F>
inline float folded(Floats x, F f) {
    x = f(x, rotated<By>(x, Lanes{}));
    if constexpr (By > 1) return folded<By / 2>(x, f);
    return x[0];
}

inline float sum(Floats x) {
    return folded(x, [](Floats a, Floats b) { return a + b; });
}

inline float lowest(Floats x) { return folded(x, least); }
inline float highest(Floats x) { return folded(x, most); }

// f(place, count) for the whole vectors of n numbers, whose count the compiler then knows, and for the rest.
template <class F>
inline void each(int n, F&& f) {
    int i = 0;
    for (; i + kLanes <= n; i += kLanes) f(i, Count<kLanes>{});
    if (i < n) f(i, n - i);
}

template <class F>
inline void replace_each(float* x, int n, F&& f) {
    each(n, [&](int i, auto count) { store_some(x + i, f(load_some(x + i, count)), count); });
}

// 1.5 · 2^23: to add it rounds to whole numbers, which then stand in the lowest bits.
constexpr float kRounding = 12582912.0f;

// 2^n · polynomial of the rest (Cephes' coefficients), some 1e-7 of the value off.
inline Floats exp(Floats x) {
    x = least(splat(88.0f), most(splat(-87.0f), x));
    const Floats shifted = x * 1.44269504f + kRounding, whole = shifted - kRounding;
    const Floats r = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    Floats y = splat(1.9875691500e-4f);
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1.0f;
    return (Floats)((Ints)y + ((Ints)shifted << 23));
}

inline Floats tanh(Floats x) { return 1.0f - 2.0f / (1.0f + exp(2.0f * x)); }

// Abramowitz and Stegun 7.1.28, 3e-7 off at most.
inline Floats erf(Floats x) {
    const Floats size = x < 0.0f ? -x : x;
    Floats p = splat(4.30638e-5f);
    p = p * size + 2.765672e-4f;
    p = p * size + 1.520143e-4f;
    p = p * size + 9.2705272e-3f;
    p = p * size + 4.22820123e-2f;
    p = p * size + 7.05230784e-2f;
    p = p * size + 1.0f;
    p *= p, p *= p, p *= p, p *= p;
    const Floats y = 1.0f - 1.0f / p;
    return x < 0.0f ? -y : y;
}

template <int Block, int... Lane>
inline void exchange(Floats& a, Floats& b, std::integer_sequence<int, Lane...>) {
    const Floats low = __builtin_shufflevector(a, b, (Lane & Block ? kLanes + Lane - Block : Lane)...);
    b = __builtin_shufflevector(a, b, (Lane & Block ? kLanes + Lane : Lane + Block)...);
    a = low;
}

// Turn a square of vectors about its diagonal.
template <int Block = 1>
inline void transpose(Floats (&x)[kLanes]) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i)
        if (!(i & Block)) exchange<Block>(x[i], x[i + Block], Lanes{});
    if constexpr (Block < kLanes / 2) transpose<2 * Block>(x);
}

}  // namespace bertram::VARIANT
