// What an encoder computes on a few rows, for one kind of processor.
//
// Letters: K inputs and N outputs of a product, S tokens of a text, d width of a head.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bertram {

// A weight [N, K] in panels of 32 outputs, each of which stays in the first cache while rows pass by it. Of int8, four
// inputs of an output stand together, as the processor's dot products take them.
constexpr int kPanel = 32;

enum class Activation : int32_t { none, gelu, gelu_tanh, relu, silu, tanh };

struct Matrix {
    const void* values;   // int8 [N / 32, K / 4, 32, 4] or float [N / 32, K, 32], both rounded up
    const float* scale;   // [N], of int8 alone, padded to whole panels as the next two
    const float* bias;    // [N]
    const int32_t* sums;  // [N], of an output's int8 weights
    int outputs, inputs;  // N, K
    bool int8;

    int panels() const { return (outputs + kPanel - 1) / kPanel; }
    int groups() const { return (inputs + 3) / 4; }
};

// Rows that a product reads: floats, or bytes of which each row has its own scale and zero.
struct Rows {
    const float* floats;
    uint8_t* bytes;
    float* scale;
    int32_t* zero;
    int stride;  // from one row to the next, of both
};

struct Kernels {
    const char* name;

    // out [rows, stride] = in · weightᵀ + bias, for some rows and some panels; whole panels are written.
    void (*product)(const Matrix&, const Rows&, int first_row, int last_row, int first_panel, int last_panel,
                    float* out, int stride);

    // x ≈ scale · (bytes - zero), 0 being among the values that are met.
    void (*quantize)(const float* x, int n, uint8_t* bytes, float* scale, int32_t* zero);

    void (*activate)(Activation, float* x, int n);
    void (*add)(float* x, const float* y, int n);
    void (*scale)(float* x, float factor, int n);
    void (*normalize)(const float* x, int n, const float* weight, const float* bias, float epsilon, float* out);

    // One row of a table: out += table[row].
    void (*look_up)(const Matrix& table, int row, float* out);

    // softmax(QKᵀ / √d) V of one head of one text: `queries` rows of out from S rows of q, k and v, all `stride` apart.
    // Behind each row of v there may be read what rounds d up to sixteen, and is not used.
    using Attend = void(const float* q, const float* k, const float* v, int stride, int tokens, int queries, int d,
                        float* out, int out_stride, float* scratch);
    Attend *attend, *attend_int16;  // in products of floats, and of int16
};

// Floats that `attend` needs.
inline size_t attention_scratch(int tokens, int d) { return static_cast<size_t>(tokens + 31) * (d + 32); }

namespace portable {
extern const Kernels kernels;
}
#if defined(__x86_64__)
namespace avx2 {
extern const Kernels kernels;
}
namespace avxvnni {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}
#endif

}  // namespace bertram
