// A whole encoder on packed texts, and the plain functions that Python calls.
//
// Letters: T tokens of B texts, H hidden width, E embedding width, F feed-forward width.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "kernels.hpp"
#include "threads.hpp"

namespace bertram {
namespace {

constexpr int kLeastRows = 24;  // of a thread that make it worth to share a product out by rows
constexpr int kRows = 36;  // that one task takes through a product and what follows it: they stay in the second cache
constexpr int kTokens = 1024;  // that are in work at a time, whole texts: what bounds memory

int padded(int n) { return (n + kPanel - 1) / kPanel * kPanel; }

// Numbers from one row of n to the next: not so many that the same place of all rows goes to one set of the first cache.
int stride_of(int n) {
    constexpr int set_apart = 4096 / sizeof(float);
    return padded(n) % set_apart ? padded(n) : padded(n) + kPanel;
}

// Memory that only grows, on cache lines, with one more behind it.
template <class T>
class Buffer {
  public:
    T* at_least(size_t n) {
        if (n > size_) {
            size_ = 0;
            memory_.reset();  // before the larger one is asked for, and so that none is left if it is not to be had
            memory_.reset(static_cast<T*>(std::aligned_alloc(64, (n * sizeof(T) + 191) / 64 * 64)));
            if (!memory_) throw std::bad_alloc();
            size_ = n;
        }
        return memory_.get();
    }

  private:
    struct Free {
        void operator()(T* p) const { std::free(p); }
    };
    std::unique_ptr<T, Free> memory_;
    size_t size_ = 0;
};

// Rows of floats beside what they are quantized to.
struct Quantized {
    Buffer<uint8_t> bytes;
    Buffer<float> scale;
    Buffer<int32_t> zero;

    Rows of(const float* floats, int rows, int stride) {
        return {floats, bytes.at_least(static_cast<size_t>(rows) * stride), scale.at_least(rows), zero.at_least(rows),
                stride};
    }
};

#if defined(__x86_64__)
bool has_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
}

// Not every compiler of today knows it by name.
bool has_avxvnni() {
    unsigned eax, ebx, ecx, edx;
    return has_avx2() && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax >> 4 & 1);
}
#endif

const Kernels* kernels_named(const char* name) {
    const Kernels* all[] = {
#if defined(__x86_64__)
        __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")
            ? &avx512::kernels
            : nullptr,
        has_avxvnni() ? &avxvnni::kernels : nullptr,
        has_avx2() ? &avx2::kernels : nullptr,
#endif
        &portable::kernels,
    };
    for (const Kernels* kernels : all)
        if (kernels && (!name || !std::strcmp(name, kernels->name))) return kernels;
    return nullptr;
}

}  // namespace

// What Python hands over; the same fields stand in kernels.py.
struct Weight {
    const void* values;
    const float *scale, *bias;
    int32_t outputs, inputs, int8;
};

struct Norm {
    const float *weight, *bias;
};

struct Layer {
    int32_t attention, output, up, down;
    Norm attention_norm, feed_forward_norm;
};

struct Model {
    int32_t hidden, embedding, heads, layers;
    int32_t tokens, positions, segments, projection;  // places among the weights, -1 where there is none
    Activation activation;
    int32_t normalize_before, normalize_embedding;
    float embedding_scale, epsilon;
    Norm embedding_norm, final_norm;
};

class Encoder {
  public:
    Encoder(const Model& model, const Weight* weights, int count, const Layer* layers, int threads,
            const Kernels* kernels)
        : model_(model),
          layers_(layers, layers + model.layers),
          kernels_(*kernels),
          threads_(threads),
          scratch_(threads) {
        for (int i = 0; i < count; ++i) add(weights[i]);
    }

    void encode(const int32_t* tokens, const int32_t* segments, const int32_t* positions, const int32_t* offsets,
                int texts, bool first_only, int steps, float* out) {
        std::lock_guard<Lock> alone(lock_);
        for (int first = 0, last; first < texts; first = last) {
            last = first + 1;
            while (last < texts && offsets[last + 1] - offsets[first] <= kTokens) ++last;
            const int begin = offsets[first], rows = first_only ? last - first : offsets[last] - begin;
            encode_some(tokens + begin, segments + begin, positions + begin, offsets + first, last - first, first_only,
                        steps);
            for (int row = 0; row < rows; ++row, out += model_.hidden)
                std::memcpy(out, states_ + static_cast<int64_t>(row) * stride_of(model_.hidden),
                            model_.hidden * sizeof(float));
        }
    }

    void linear(int weight, const float* x, int rows, Activation activation, float* out) {
        std::lock_guard<Lock> alone(lock_);
        const Matrix& m = matrices_[weight];
        const int stride = stride_of(m.outputs), in_stride = stride_of(m.inputs);
        for (int done = 0; done < rows; done += kTokens) {
            const int some = std::min(kTokens, rows - done);
            float* copy = inner_.at_least(static_cast<size_t>(some) * in_stride);
            const Rows in = narrow_bytes_.of(copy, some, in_stride);
            threads_.run(some, [&](int row, int) {
                std::memcpy(copy + static_cast<int64_t>(row) * in_stride,
                            x + static_cast<int64_t>(done + row) * m.inputs, m.inputs * sizeof(float));
                quantize(in, row, m.inputs);
            });
            product(m, in, some, nullptr, stride, [&](float* row, int place) {
                kernels_.activate(activation, row, m.outputs);
                std::memcpy(out + static_cast<int64_t>(done + place) * m.outputs, row, m.outputs * sizeof(float));
            });
        }
    }

    const char* variant() const { return kernels_.name; }

  private:
    // A weight with its vectors padded to whole panels, and the sums that its products need.
    void add(const Weight& w) {
        Matrix m{w.values, nullptr, nullptr, nullptr, w.outputs, w.inputs, w.int8 != 0};
        const int n = padded(w.outputs);
        std::vector<float> bias(n, 0.0f), scale(n, 0.0f);
        if (w.bias) std::copy(w.bias, w.bias + w.outputs, bias.begin());
        if (w.int8) {
            std::copy(w.scale, w.scale + w.outputs, scale.begin());
            std::vector<int32_t> sums(n, 0);
            const int8_t* value = static_cast<const int8_t*>(w.values);
            for (int p = 0; p < m.panels(); ++p)
                for (int k = 0; k < m.groups(); ++k)
                    for (int i = 0; i < 4 * kPanel; ++i) sums[p * kPanel + i / 4] += *value++;
            sums_.push_back(std::move(sums));
            m.sums = sums_.back().data();
        }
        vectors_.push_back(std::move(bias));
        m.bias = vectors_.back().data();
        vectors_.push_back(std::move(scale));
        m.scale = vectors_.back().data();
        matrices_.push_back(m);
    }

    void encode_some(const int32_t* tokens, const int32_t* segments, const int32_t* positions, const int32_t* offsets,
                     int texts, bool first_only, int steps) {
        const int total = offsets[texts] - offsets[0], H = model_.hidden, stride = stride_of(H);
        states_ = states_memory_.at_least(static_cast<size_t>(total) * stride);
        input_ = model_.normalize_before ? normed_.at_least(static_cast<size_t>(total) * stride) : states_;
        embed(tokens, segments, positions, total);
        int rows = total;
        for (int i = 0; i < steps; ++i) {
            const Layer& layer = layers_[i];
            const bool last = i + 1 == steps;
            const Norm* after = !model_.normalize_before ? &layer.feed_forward_norm
                                : last                   ? &model_.final_norm
                                                         : &layers_[i + 1].attention_norm;
            const int triple = stride_of(3 * H);
            float* qkv = wide_.at_least(static_cast<size_t>(total) * triple);
            const Rows in = narrow_bytes_.of(input_, total, stride);
            product(matrices_[layer.attention], in, total, qkv, triple, [](float*, int) {});
            const Rows mixed = attend(layer, qkv, triple, offsets, texts, first_only && last, total);
            if (first_only && last) {
                for (int text = 0; text < texts; ++text)
                    std::memmove(states_ + static_cast<int64_t>(text) * stride,
                                 states_ + static_cast<int64_t>(offsets[text] - offsets[0]) * stride,
                                 H * sizeof(float));
                rows = texts;
            }
            const Norm* between = model_.normalize_before ? &layer.feed_forward_norm : &layer.attention_norm;
            product(matrices_[layer.output], mixed, rows, nullptr, stride,
                    [&](float* row, int place) { take_up(in, row, place, between); });
            feed_forward(layer, in, rows, after);
        }
        if (model_.normalize_before) std::memcpy(states_, input_, static_cast<size_t>(rows) * stride * sizeof(float));
    }

    void embed(const int32_t* tokens, const int32_t* segments, const int32_t* positions, int total) {
        const int E = model_.embedding, narrow = stride_of(E), stride = stride_of(model_.hidden);
        const bool factorised = model_.projection >= 0;
        float* rows = factorised ? inner_.at_least(static_cast<size_t>(total) * narrow) : states_;
        const Rows embedded = wide_bytes_.of(rows, total, narrow), in = narrow_bytes_.of(input_, total, stride);
        const Norm* first = model_.normalize_before ? &layers_[0].attention_norm : nullptr;
        threads_.run(total, [&](int t, int) {
            float* x = rows + static_cast<int64_t>(t) * narrow;
            std::memset(x, 0, narrow * sizeof(float));
            kernels_.look_up(matrices_[model_.tokens], tokens[t], x);
            if (model_.embedding_scale != 1.0f) kernels_.scale(x, model_.embedding_scale, E);
            kernels_.look_up(matrices_[model_.positions], positions[t], x);
            if (model_.segments >= 0) kernels_.look_up(matrices_[model_.segments], segments[t], x);
            if (model_.normalize_embedding)
                kernels_.normalize(x, E, model_.embedding_norm.weight, model_.embedding_norm.bias, model_.epsilon, x);
            if (factorised)
                quantize(embedded, t, E);
            else
                prepare(in, t, first);
        });
        if (factorised)
            product(matrices_[model_.projection], embedded, total, states_, stride,
                    [&](float*, int t) { prepare(in, t, first); });
    }

    // Where int8 weights have made queries, keys and values, products of int16 lose nothing beside.
    Rows attend(const Layer& layer, const float* qkv, int stride, const int32_t* offsets, int texts, bool first_only,
                int total) {
        const int H = model_.hidden, heads = model_.heads, d = H / heads, out_stride = stride_of(H);
        float* context = context_.at_least(static_cast<size_t>(total) * out_stride);
        int longest = 0;
        for (int text = 0; text < texts; ++text) longest = std::max(longest, offsets[text + 1] - offsets[text]);
        reserve(attention_scratch(longest, d));
        Kernels::Attend* kernel = matrices_[layer.attention].int8 ? kernels_.attend_int16 : kernels_.attend;
        threads_.run(texts * heads, [&](int task, int thread) {
            const int text = task / heads, head = task % heads, begin = offsets[text] - offsets[0],
                      tokens = offsets[text + 1] - offsets[text];
            const float* q = qkv + static_cast<int64_t>(begin) * stride + head * d;
            float* out = context + static_cast<int64_t>(first_only ? text : begin) * out_stride + head * d;
            float* scratch = scratch_[thread].at_least(0);
            kernel(q, q + H, q + 2 * H, stride, tokens, first_only ? 1 : tokens, d, out, out_stride, scratch);
        });
        const int rows = first_only ? texts : total;
        const Rows mixed = narrow_bytes_.of(context, rows, out_stride);
        threads_.run((rows + 15) / 16, [&](int task, int) {
            for (int row = 16 * task; row < std::min(rows, 16 * task + 16); ++row) quantize(mixed, row, H);
        });
        return mixed;
    }

    // Room for every thread, asked for here because a task that fails to get it could not say so.
    void reserve(size_t floats) {
        for (Buffer<float>& scratch : scratch_) scratch.at_least(floats);
    }

    // Where `down` is int8 and rows are many, inner rows are quantized a block at a time, and their floats are never all
    // there at once.
    void feed_forward(const Layer& layer, const Rows& in, int rows, const Norm* after) {
        const Matrix &up = matrices_[layer.up], &down = matrices_[layer.down];
        const int F = up.outputs, wide = stride_of(F), stride = stride_of(model_.hidden);
        float* inner = down.int8 ? nullptr : inner_.at_least(static_cast<size_t>(rows) * wide);
        const Rows between = wide_bytes_.of(inner, rows, wide);
        product(up, in, rows, inner, wide, [&](float* row, int place) {
            kernels_.activate(model_.activation, row, F);
            if (down.int8)
                kernels_.quantize(row, F, between.bytes + static_cast<int64_t>(place) * wide, between.scale + place,
                                  between.zero + place);
        });
        product(down, between, rows, nullptr, stride, [&](float* row, int place) { take_up(in, row, place, after); });
    }

    // out = in · weightᵀ + bias, then finish(row, place) for every row. `out` may be null: then a row is gone when it is
    // finished.
    template <class F>
    void product(const Matrix& m, const Rows& in, int rows, float* out, int stride, F&& finish) {
        const int threads = threads_.count();
        if (rows >= threads * kLeastRows || threads == 1) {
            const int rounds = (rows + threads * kRows - 1) / (threads * kRows),
                      some = (rows + rounds * threads - 1) / (rounds * threads);
            if (!out) reserve(static_cast<size_t>(kRows) * stride);
            threads_.run((rows + some - 1) / some, [&](int task, int thread) {
                const int first = task * some, last = std::min(rows, first + some);
                float* to = out ? out + static_cast<int64_t>(first) * stride : scratch_[thread].at_least(0);
                kernels_.product(m, in, first, last, 0, m.panels(), to, stride);
                for (int row = first; row < last; ++row) finish(to + static_cast<int64_t>(row - first) * stride, row);
            });
            return;
        }
        if (!out) out = whole_.at_least(static_cast<size_t>(rows) * stride);
        const int share = std::max(1, m.panels() / (4 * threads));
        threads_.run((m.panels() + share - 1) / share, [&](int task, int) {
            kernels_.product(m, in, 0, rows, task * share, std::min(m.panels(), (task + 1) * share), out, stride);
        });
        const int some = std::max(1, rows / (2 * threads));
        threads_.run((rows + some - 1) / some, [&](int task, int) {
            for (int row = task * some; row < std::min(rows, (task + 1) * some); ++row)
                finish(out + static_cast<int64_t>(row) * stride, row);
        });
    }

    // Add a part's output to the residual stream and make the next part's input of it.
    void take_up(const Rows& in, const float* row, int place, const Norm* norm) {
        kernels_.add(states_ + static_cast<int64_t>(place) * in.stride, row, model_.hidden);
        prepare(in, place, norm);
    }

    void prepare(const Rows& in, int place, const Norm* norm) {
        const int64_t start = static_cast<int64_t>(place) * in.stride;
        if (norm)
            kernels_.normalize(states_ + start, model_.hidden, norm->weight, norm->bias, model_.epsilon,
                               input_ + start);
        quantize(in, place, model_.hidden);
    }

    void quantize(const Rows& rows, int place, int n) {
        const int64_t start = static_cast<int64_t>(place) * rows.stride;
        kernels_.quantize(rows.floats + start, n, rows.bytes + start, rows.scale + place, rows.zero + place);
    }

    const Model model_;
    const std::vector<Layer> layers_;
    const Kernels& kernels_;
    Threads threads_;
    Lock lock_;
    std::vector<Matrix> matrices_;
    std::vector<std::vector<float>> vectors_;
    std::vector<std::vector<int32_t>> sums_;

    float *states_ = nullptr, *input_ = nullptr;  // the residual stream, and what the next part reads of it
    Buffer<float> states_memory_, normed_, context_, wide_, inner_, whole_;
    Quantized narrow_bytes_, wide_bytes_;
    std::vector<Buffer<float>> scratch_;
};

}  // namespace bertram

using namespace bertram;

// Each returns null or -1 where memory ran out.
extern "C" {
#pragma GCC visibility push(default)

Encoder* bertram_encoder_new(const Model* model, const Weight* weights, int count, const Layer* layers, int threads,
                             const char* variant) try {
    const Kernels* kernels = kernels_named(variant);
    return kernels ? new Encoder(*model, weights, count, layers, threads, kernels) : nullptr;
} catch (...) {
    return nullptr;
}

void bertram_encoder_free(Encoder* encoder) { delete encoder; }

const char* bertram_variant() { return kernels_named(nullptr)->name; }

const char* bertram_encoder_variant(const Encoder* encoder) { return encoder->variant(); }

int bertram_encode(Encoder* encoder, const int32_t* tokens, const int32_t* segments, const int32_t* positions,
                   const int32_t* offsets, int texts, int first_only, int steps, float* out) try {
    encoder->encode(tokens, segments, positions, offsets, texts, first_only != 0, steps, out);
    return 0;
} catch (...) {
    return -1;
}

int bertram_linear(Encoder* encoder, int weight, const float* x, int rows, int activation, float* out) try {
    encoder->linear(weight, x, rows, static_cast<Activation>(activation), out);
    return 0;
} catch (...) {
    return -1;
}

#pragma GCC visibility pop
}
