#include "sim/moe/expert.h"

#include <omp.h>

#include <algorithm>
#include <cmath>

#include <dnnl.hpp>

#include "base/check.h"
#include "base/rng.h"

namespace epsim {
namespace {

std::vector<float> seeded_matrix(std::uint64_t seed, int layer, int expert, int matrix, std::int64_t rows, std::int64_t columns) {
  Rng rng(seed, Stream::weights, static_cast<std::uint64_t>(expert + 1) * 3 + static_cast<std::uint64_t>(matrix), static_cast<std::uint32_t>(layer));
  const double bound = std::sqrt(3.0 / static_cast<double>(rows));
  std::vector<float> m(static_cast<std::size_t>(rows * columns));
  for (float& v : m) v = static_cast<float>((2 * rng.uniform() - 1) * bound);
  return m;
}

const dnnl::engine& cpu() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

dnnl::memory::desc plain(std::int64_t rows, std::int64_t columns) {
  return {{rows, columns}, dnnl::memory::data_type::f32, dnnl::memory::format_tag::ab};
}

/// A [tile][inner] x [inner][outer] product whose right side is packed once.
struct Matmul {
  dnnl::matmul::primitive_desc desc;
  dnnl::matmul run;

  static Matmul make(std::int64_t inner, std::int64_t outer) {
    const dnnl::memory::desc any({inner, outer}, dnnl::memory::data_type::f32, dnnl::memory::format_tag::any);
    const dnnl::matmul::desc d(plain(ExpertBank::kTileRows, inner), any, plain(ExpertBank::kTileRows, outer));
    dnnl::matmul::primitive_desc desc(d, cpu());
    return {desc, dnnl::matmul(desc)};
  }

  dnnl::memory pack(std::vector<float> right, std::int64_t inner, std::int64_t outer) const {
    dnnl::memory from(plain(inner, outer), cpu(), right.data());
    dnnl::memory packed(desc.weights_desc(), cpu());
    dnnl::stream stream(cpu());
    dnnl::reorder(from, packed).execute(stream, from, packed);
    stream.wait();
    return packed;
  }

  void operator()(dnnl::stream& stream, float* left, const dnnl::memory& right, float* out) const {
    dnnl::memory src(desc.src_desc(), cpu(), left), dst(desc.dst_desc(), cpu(), out);
    run.execute(stream, {{DNNL_ARG_SRC, src}, {DNNL_ARG_WEIGHTS, right}, {DNNL_ARG_DST, dst}});
  }
};

}  // namespace

ExpertWeights make_expert_weights(std::uint64_t seed, int layer, int expert, std::int64_t hidden, std::int64_t ffn) {
  return {seeded_matrix(seed, layer, expert, 0, hidden, ffn), seeded_matrix(seed, layer, expert, 1, hidden, ffn), seeded_matrix(seed, layer, expert, 2, ffn, hidden)};
}

/// The two products of an expert of one width: x [w1 | w3], and the gated rows times w2.
struct ExpertBank::Product {
  std::int64_t ffn;
  Matmul in, out;
};

struct ExpertBank::Packed {
  std::shared_ptr<const Product> product;
  dnnl::memory w13, w2;
};

ExpertBank::ExpertBank(std::int64_t hidden) : hidden_(hidden) { omp_set_num_threads(1); }  // a process is one rank's worth of compute
ExpertBank::~ExpertBank() = default;

void ExpertBank::add(int expert, std::int64_t ffn, const ExpertWeights& w) {
  std::shared_ptr<const Product>& product = products_[ffn];
  if (!product) product = std::make_shared<Product>(Product{ffn, Matmul::make(hidden_, 2 * ffn), Matmul::make(ffn, hidden_)});
  std::vector<float> w13(static_cast<std::size_t>(2 * hidden_ * ffn));
  for (std::int64_t i = 0; i < hidden_; ++i) {
    std::copy_n(w.w1.begin() + i * ffn, ffn, w13.begin() + i * 2 * ffn);
    std::copy_n(w.w3.begin() + i * ffn, ffn, w13.begin() + i * 2 * ffn + ffn);
  }
  experts_[expert] = std::make_unique<Packed>(Packed{product, product->in.pack(std::move(w13), hidden_, 2 * ffn), product->out.pack(w.w2, ffn, hidden_)});
}

void ExpertBank::remove(int expert) { experts_.erase(expert); }
bool ExpertBank::holds(int expert) const { return experts_.contains(expert); }

void ExpertBank::forward(int expert, std::span<const float> rows, std::span<float> out) const {
  const auto found = experts_.find(expert);
  ensure(found != experts_.end(), "a process computes only with experts it holds");
  const Packed& e = *found->second;
  const std::size_t h = static_cast<std::size_t>(hidden_), f = static_cast<std::size_t>(e.product->ffn);
  std::vector<float> x(kTileRows * h), inner(kTileRows * 2 * f), gated(kTileRows * f), y(kTileRows * h);
  dnnl::stream stream(cpu());
  for (std::size_t first = 0; first * h < rows.size(); first += kTileRows) {
    const std::size_t n = std::min<std::size_t>(kTileRows, rows.size() / h - first);
    std::copy_n(rows.begin() + static_cast<std::ptrdiff_t>(first * h), n * h, x.begin());
    std::fill(x.begin() + static_cast<std::ptrdiff_t>(n * h), x.end(), 0.0F);
    e.product->in(stream, x.data(), e.w13, inner.data());
    stream.wait();
    for (std::size_t r = 0; r < kTileRows; ++r)
      for (std::size_t j = 0; j < f; ++j) {
        const float a = inner[r * 2 * f + j];
        gated[r * f + j] = a / (1.0F + std::exp(-a)) * inner[r * 2 * f + f + j];
      }
    e.product->out(stream, gated.data(), e.w2, y.data());
    stream.wait();
    std::copy_n(y.begin(), n * h, out.begin() + static_cast<std::ptrdiff_t>(first * h));
  }
}

}  // namespace epsim
