#include "sim/moe/product.h"

#include <omp.h>

#include <algorithm>
#include <bit>
#include <map>
#include <mutex>
#include <tuple>

#include <dnnl.hpp>

#include "base/check.h"
#include "base/vectorise.h"
#include "sim/moe/vectors.h"

namespace epsim {
namespace {

constexpr std::int64_t kTile = RightSide::kTileRows;

const dnnl::engine& cpu() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

/// oneDNN's stream of this thread, on which a product uses one core: whoever wants several calls from several threads.
dnnl::stream& stream() {
  thread_local dnnl::stream mine = [] {
    omp_set_num_threads(1);
    return dnnl::stream(cpu());
  }();
  return mine;
}

/// Work space that a thread keeps; a place of its own for each use that may be under way at once.
template <int kUse, class T>
T* workspace(std::int64_t count) {
  thread_local std::vector<T> mine;
  if (mine.size() < static_cast<std::size_t>(count)) mine.resize(static_cast<std::size_t>(count));
  return mine.data();
}

dnnl::memory::desc plain(std::int64_t rows, std::int64_t columns, dnnl::memory::data_type type) { return {{rows, columns}, type, dnnl::memory::format_tag::ab}; }

EPSIM_VECTORISE void to_bfloat16(const float* __restrict from, std::uint16_t* __restrict to, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(from[i]);
    const std::uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    to[i] = static_cast<std::uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? bits >> 16 | 0x40 : rounded);  // a NaN stays one
  }
}

/// The product of a tile with a packed right side.
struct TileProduct {
  dnnl::matmul::primitive_desc desc;
  dnnl::matmul run;
  std::int64_t scratchpad;

  static TileProduct make(std::int64_t inner, std::int64_t outer, Precision precision, bool add) {
    const auto type = precision == Precision::bf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
    const dnnl::memory::desc any({inner, outer}, type, dnnl::memory::format_tag::any);
    const dnnl::matmul::desc d(plain(kTile, inner, type), any, plain(kTile, outer, dnnl::memory::data_type::f32));
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);  // the library's own is one thread's
    if (add) {
      dnnl::post_ops sum;
      sum.append_sum();
      attributes.set_post_ops(sum);
    }
    dnnl::matmul::primitive_desc desc(d, attributes, cpu());
    return {desc, dnnl::matmul(desc), static_cast<std::int64_t>(desc.scratchpad_desc().get_size())};
  }
};

/// The products of a shape. Making them is dear (code is generated), so they are kept for the life of the process.
struct ShapeProducts {
  TileProduct set, add;
};
const ShapeProducts& products_of(std::int64_t inner, std::int64_t outer, Precision precision) {
  static std::mutex mutex;
  static std::map<std::tuple<std::int64_t, std::int64_t, Precision>, ShapeProducts> kept;
  const std::lock_guard lock(mutex);
  const std::tuple key(inner, outer, precision);
  auto found = kept.find(key);
  if (found == kept.end()) {
    found = kept.emplace(key, ShapeProducts{TileProduct::make(inner, outer, precision, false), TileProduct::make(inner, outer, precision, true)}).first;
    ensure(found->second.set.desc.weights_desc() == found->second.add.desc.weights_desc(), "a packed matrix serves both products of its shape");
  }
  return found->second;
}

/// The sum of outer products of one chunk in bfloat16. Chunks are filled up with rows of zeros to one of a few sizes.
struct OuterProduct {
  static constexpr std::int64_t kRowStep = 32;
  dnnl::matmul::primitive_desc desc;
  dnnl::matmul run;

  static OuterProduct make(std::int64_t m, std::int64_t n, std::int64_t rows) {
    const dnnl::memory::desc left({m, rows}, dnnl::memory::data_type::bf16, dnnl::memory::format_tag::ba);
    const dnnl::matmul::desc d(left, plain(rows, n, dnnl::memory::data_type::bf16), plain(m, n, dnnl::memory::data_type::f32));
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    dnnl::matmul::primitive_desc desc(d, attributes, cpu());
    return {desc, dnnl::matmul(desc)};
  }

  void operator()(const std::uint16_t* left, const std::uint16_t* right, float* out) const {
    dnnl::memory a(desc.src_desc(), cpu(), const_cast<std::uint16_t*>(left)), b(desc.weights_desc(), cpu(), const_cast<std::uint16_t*>(right)), to(desc.dst_desc(), cpu(), out);
    dnnl::memory scratchpad(desc.scratchpad_desc(), cpu(), workspace<1, char>(static_cast<std::int64_t>(desc.scratchpad_desc().get_size())));
    run.execute(stream(), {{DNNL_ARG_SRC, a}, {DNNL_ARG_WEIGHTS, b}, {DNNL_ARG_DST, to}, {DNNL_ARG_SCRATCHPAD, scratchpad}});
    stream().wait();
  }
};
const OuterProduct& outer_product_of(std::int64_t m, std::int64_t n, std::int64_t rows) {
  static std::mutex mutex;
  static std::map<std::tuple<std::int64_t, std::int64_t, std::int64_t>, OuterProduct> kept;
  const std::lock_guard lock(mutex);
  const std::tuple key(m, n, rows);
  auto found = kept.find(key);
  if (found == kept.end()) found = kept.emplace(key, OuterProduct::make(m, n, rows)).first;
  return found->second;
}

/// Rows in bfloat16, and zeros behind them up to `padded` rows.
template <int kUse>
const std::uint16_t* narrowed(const float* rows, std::int64_t count, std::int64_t padded, std::int64_t width) {
  auto* narrow = workspace<kUse, std::uint16_t>(padded * width);
  to_bfloat16(rows, narrow, count * width);
  std::fill_n(narrow + count * width, (padded - count) * width, std::uint16_t{0});
  return narrow;
}

/// out = the sum over chunks [begin, end) of `leaf`, by a binary tree whose left half is the largest power of two: it does not change when chunks are added behind.
template <class Leaf>
void add_chunks(std::int64_t begin, std::int64_t end, std::int64_t size, const Leaf& leaf, float* out) {
  if (end - begin == 1) return leaf(begin, out);
  const auto half = static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(end - begin - 1)));
  add_chunks(begin, begin + half, size, leaf, out);
  std::vector<float> right(static_cast<std::size_t>(size));
  add_chunks(begin + half, end, size, leaf, right.data());
  add_to(out, right.data(), size);
}

template <class Leaf>
void add_all_chunks(std::int64_t rows, std::int64_t size, const Leaf& leaf, float* out) {
  if (rows == 0) return void(std::fill_n(out, size, 0.0F));
  add_chunks(0, (rows + kChunkRows - 1) / kChunkRows, size, leaf, out);
}

}  // namespace

struct RightSide::Packed {
  const ShapeProducts& products;
  dnnl::memory memory;
  Precision precision;

  void tile(const float* left, std::int64_t inner, float* out, bool add) const {
    const TileProduct& product = add ? products.add : products.set;
    const void* source = left;
    if (precision == Precision::bf16) {
      auto* narrow = workspace<0, std::uint16_t>(kTile * inner);
      to_bfloat16(left, narrow, kTile * inner);
      source = narrow;
    }
    dnnl::memory from(product.desc.src_desc(), cpu(), const_cast<void*>(source)), to(product.desc.dst_desc(), cpu(), out);
    dnnl::memory scratchpad(product.desc.scratchpad_desc(), cpu(), workspace<1, char>(product.scratchpad));
    product.run.execute(stream(), {{DNNL_ARG_SRC, from}, {DNNL_ARG_WEIGHTS, memory}, {DNNL_ARG_DST, to}, {DNNL_ARG_SCRATCHPAD, scratchpad}});
    stream().wait();
  }
};

RightSide::RightSide(std::int64_t inner, std::int64_t outer, const float* values, bool transposed, Precision precision) : inner_(inner), outer_(outer) {
  ensure(precision == Precision::fp32 || precision == Precision::bf16, "experts compute in float32 or bfloat16");
  dnnl::stream& mine = stream();  // before any other call of this thread: it settles the number of cores
  const ShapeProducts& products = products_of(inner, outer, precision);
  const dnnl::memory::dims strides = transposed ? dnnl::memory::dims{1, inner} : dnnl::memory::dims{outer, 1};
  dnnl::memory from({{inner, outer}, dnnl::memory::data_type::f32, strides}, cpu(), const_cast<float*>(values));
  dnnl::memory packed(products.set.desc.weights_desc(), cpu());
  dnnl::reorder(from, packed).execute(mine, from, packed);
  mine.wait();
  packed_ = std::make_shared<const Packed>(Packed{products, std::move(packed), precision});
}

void RightSide::multiply(const float* left, std::int64_t rows, float* out, bool add) const {
  std::int64_t first = 0;
  for (; first + kTile <= rows; first += kTile) packed_->tile(left + first * inner_, inner_, out + first * outer_, add);
  if (first == rows) return;
  const std::int64_t n = rows - first;
  float* in = workspace<2, float>(kTile * inner_);
  float* result = workspace<3, float>(kTile * outer_);
  std::fill(std::copy_n(left + first * inner_, n * inner_, in), in + kTile * inner_, 0.0F);
  if (add) std::fill(std::copy_n(out + first * outer_, n * outer_, result), result + kTile * outer_, 0.0F);
  packed_->tile(in, inner_, result, add);
  std::copy_n(result, n * outer_, out + first * outer_);
}

void sum_outer_products(const float* left, std::int64_t m, const float* right, std::int64_t n, std::int64_t rows, float* out, Precision precision) {
  stream();
  const auto leaf = [&](std::int64_t chunk, float* sum) {
    const std::int64_t first = chunk * kChunkRows, count = std::min(kChunkRows, rows - first);
    if (precision == Precision::bf16) {
      const std::int64_t padded = (count + OuterProduct::kRowStep - 1) / OuterProduct::kRowStep * OuterProduct::kRowStep;
      return outer_product_of(m, n, padded)(narrowed<4>(left + first * m, count, padded, m), narrowed<5>(right + first * n, count, padded, n), sum);
    }
    const auto status = dnnl::sgemm('T', 'N', m, n, count, 1.0F, left + first * m, m, right + first * n, n, 0.0F, sum, n);
    ensure(status == dnnl::status::success, "a product of matrices is computed");
  };
  add_all_chunks(rows, m * n, leaf, out);
}

void sum_rows(const float* scale, const float* right, std::int64_t n, std::int64_t rows, float* out) {
  const auto leaf = [&](std::int64_t chunk, float* sum) {
    std::fill_n(sum, n, 0.0F);
    for (std::int64_t row = chunk * kChunkRows; row < std::min(rows, (chunk + 1) * kChunkRows); ++row)
      scale ? add_scaled(sum, scale[row], right + row * n, n) : add_to(sum, right + row * n, n);
  };
  add_all_chunks(rows, n, leaf, out);
}

}  // namespace epsim
