#include "sim/moe/product.h"

#include <omp.h>

#include <algorithm>
#include <bit>
#include <map>
#include <mutex>
#include <tuple>
#include <type_traits>
#include <unordered_map>

#include <dnnl.hpp>

#include "base/check.h"
#include "sim/moe/vectors.h"
#include "sim/moe/workspace.h"

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

dnnl::memory::data_type type_of(Precision precision) { return precision == Precision::bf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32; }
dnnl::memory::desc plain(std::int64_t rows, std::int64_t columns, Precision precision) { return {{rows, columns}, type_of(precision), dnnl::memory::format_tag::ab}; }

/// A product of matrices of given sizes and places of their numbers, to a float32 matrix row by row.
class Product {
 public:
  Product(const dnnl::memory::desc& left, const dnnl::memory::desc& right, bool add)
      : desc_(dnnl::matmul::desc(left, right, plain(left.dims()[0], right.dims()[1], Precision::fp32)), attributes(add), cpu()), run_(desc_) {}

  /// The places that the right side's numbers have, where any were allowed.
  dnnl::memory::desc right() const { return desc_.weights_desc(); }

  /// Either side may be null, which is the other's. oneDNN's handles of memory are a thread's own and are kept: making them anew takes as long as some products.
  void operator()(const void* left, const dnnl::memory& right, float* out) const {
    Handles& mine = handles();
    mine.left.set_data_handle(const_cast<void*>(left));
    run(mine, right, out);
  }
  void operator()(const void* left, const void* right, float* out) const {
    Handles& mine = handles();
    mine.left.set_data_handle(const_cast<void*>(left));
    mine.right.set_data_handle(const_cast<void*>(right));
    run(mine, mine.right, out);
  }

 private:
  struct Handles {
    dnnl::memory left, right, out, scratchpad;
  };

  static dnnl::primitive_attr attributes(bool add) {
    dnnl::primitive_attr a;
    a.set_scratchpad_mode(dnnl::scratchpad_mode::user);  // the library's own is one thread's
    if (add) {
      dnnl::post_ops sum;
      sum.append_sum();
      a.set_post_ops(sum);
    }
    return a;
  }

  Handles& handles() const {
    thread_local std::unordered_map<const Product*, Handles> kept;  // products live as long as the process
    const auto found = kept.find(this);
    if (found != kept.end()) return found->second;
    const auto empty = [](const dnnl::memory::desc& desc) { return dnnl::memory(desc, cpu(), nullptr); };
    return kept.emplace(this, Handles{empty(desc_.src_desc()), empty(desc_.weights_desc()), empty(desc_.dst_desc()), empty(desc_.scratchpad_desc())}).first->second;
  }

  void run(Handles& mine, const dnnl::memory& right, float* out) const {
    mine.out.set_data_handle(out);
    mine.scratchpad.set_data_handle(workspace<Product, char>(static_cast<std::int64_t>(desc_.scratchpad_desc().get_size())));
    const dnnl_exec_arg_t given[] = {{DNNL_ARG_SRC, mine.left.get()}, {DNNL_ARG_WEIGHTS, right.get()}, {DNNL_ARG_DST, mine.out.get()}, {DNNL_ARG_SCRATCHPAD, mine.scratchpad.get()}};
    ensure(dnnl_primitive_execute(run_.get(), stream().get(), std::size(given), given) == dnnl_success, "a product of matrices is computed");
    stream().wait();
  }

  dnnl::matmul::primitive_desc desc_;
  dnnl::matmul run_;
};

/// The products of a shape: one that sets its result, and one that adds to it.
struct Products {
  Product set, add;
};

/// Products are dear to make (code is generated), so they are kept for the life of the process.
template <class Use, class... Sizes>
const Products& kept_products(const dnnl::memory::desc& left, const dnnl::memory::desc& right, Sizes... sizes) {
  static std::mutex mutex;
  static std::map<std::tuple<Sizes...>, Products> kept;
  const std::lock_guard lock(mutex);
  const std::tuple key(sizes...);
  const auto found = kept.find(key);
  if (found != kept.end()) return found->second;
  return kept.emplace(std::piecewise_construct, std::forward_as_tuple(key), std::forward_as_tuple(Product(left, right, false), Product(left, right, true))).first->second;
}

/// A tile times a packed right side.
const Products& tile_products(std::int64_t inner, std::int64_t outer, Precision precision) {
  struct OfTiles;
  const Products& products = kept_products<OfTiles>(plain(kTile, inner, precision), {{inner, outer}, type_of(precision), dnnl::memory::format_tag::any}, inner, outer, precision);
  ensure(products.set.right() == products.add.right(), "a packed matrix serves both products of its shape");
  return products;
}

/// The sum of the outer products of a chunk's rows in bfloat16, which are filled up with zeros to one of a few counts.
constexpr std::int64_t kRowStep = 32;
const Products& outer_products(std::int64_t m, std::int64_t n, std::int64_t rows) {
  struct OfRows;
  return kept_products<OfRows>({{m, rows}, dnnl::memory::data_type::bf16, dnnl::memory::format_tag::ba}, plain(rows, n, Precision::bf16), m, n, rows);
}

/// Some rows, with zeros behind them up to `padded` rows.
template <class Use, class T>
const T* filled_up(const T* rows, std::int64_t count, std::int64_t padded, std::int64_t width) {
  if (count == padded) return rows;
  T* room = workspace<Use, T>(padded * width);
  std::fill(std::copy_n(rows, count * width, room), room + padded * width, T{});
  return room;
}

/// Room for a sum at some depth of the tree of chunks.
float* room_for_sum(std::size_t depth, std::int64_t size) {
  thread_local std::vector<std::vector<float>> rooms;
  if (rooms.size() <= depth) rooms.resize(depth + 1);
  if (rooms[depth].size() < static_cast<std::size_t>(size)) rooms[depth].resize(static_cast<std::size_t>(size));
  return rooms[depth].data();
}

/// out = the sum over chunks [begin, end) of `leaf`, by a binary tree whose left half is the largest power of two: it does not change when chunks are added behind.
/// `leaf(chunk, out, add)` gives a chunk's sum or adds it.
template <class Leaf>
void add_chunks(std::int64_t begin, std::int64_t end, std::int64_t size, const Leaf& leaf, float* out, std::size_t depth = 0) {
  if (end - begin == 1) return leaf(begin, out, false);
  const auto half = static_cast<std::int64_t>(std::bit_floor(static_cast<std::uint64_t>(end - begin - 1)));
  add_chunks(begin, begin + half, size, leaf, out, depth + 1);
  if (end - begin - half == 1) return leaf(begin + half, out, true);
  float* right = room_for_sum(depth, size);
  add_chunks(begin + half, end, size, leaf, right, depth + 1);
  add_to(out, right, size);
}

template <class Leaf>
void add_all_chunks(std::int64_t rows, std::int64_t size, const Leaf& leaf, float* out) {
  if (rows == 0) return void(std::fill_n(out, size, 0.0F));
  add_chunks(0, (rows + kChunkRows - 1) / kChunkRows, size, leaf, out);
}

/// The leaf whose chunk's sum is made alone first.
template <class Sum>
auto alone(std::int64_t size, const Sum& sum) {
  return [size, &sum](std::int64_t chunk, float* out, bool add) {
    struct Chunk;
    float* mine = add ? workspace<Chunk, float>(size) : out;
    sum(chunk, mine);
    if (add) add_to(out, mine, size);
  };
}

/// The leaf that adds up rows one after another.
template <class Add>
void sum_rows_by(const Add& add_row, std::int64_t n, std::int64_t rows, float* out) {
  const auto sum = [&](std::int64_t chunk, float* mine) {
    std::fill_n(mine, n, 0.0F);
    for (std::int64_t row = chunk * kChunkRows; row < std::min(rows, (chunk + 1) * kChunkRows); ++row) add_row(mine, row);
  };
  add_all_chunks(rows, n, alone(n, sum), out);
}

}  // namespace

struct RightSide::Packed {
  const Products& products;
  dnnl::memory memory;
  Precision precision;
};

RightSide::RightSide(std::int64_t inner, std::int64_t outer, const float* values, bool transposed, Precision precision) : inner_(inner), outer_(outer) {
  ensure(precision == Precision::fp32 || precision == Precision::bf16, "experts compute in float32 or bfloat16");
  dnnl::stream& mine = stream();  // before any other call of this thread: it settles the number of cores
  const Products& products = tile_products(inner, outer, precision);
  const dnnl::memory::dims strides = transposed ? dnnl::memory::dims{1, inner} : dnnl::memory::dims{outer, 1};
  dnnl::memory from({{inner, outer}, dnnl::memory::data_type::f32, strides}, cpu(), const_cast<float*>(values));
  dnnl::memory packed(products.set.right(), cpu());
  dnnl::reorder(from, packed).execute(mine, from, packed);
  mine.wait();
  packed_ = std::make_shared<const Packed>(Packed{products, std::move(packed), precision});
}

template <class Left>
void RightSide::in_tiles(const Left* left, std::int64_t rows, float* out, bool add) const {
  struct LastLeft;
  struct LastOut;
  ensure(packed_->precision == (std::is_same_v<Left, float> ? Precision::fp32 : Precision::bf16), "both sides of a product have one precision");
  const Product& product = add ? packed_->products.add : packed_->products.set;
  std::int64_t first = 0;
  for (; first + kTile <= rows; first += kTile) product(left + first * inner_, packed_->memory, out + first * outer_);
  if (first == rows) return;
  const std::int64_t n = rows - first;
  float* result = workspace<LastOut, float>(kTile * outer_);
  if (add) std::fill(std::copy_n(out + first * outer_, n * outer_, result), result + kTile * outer_, 0.0F);
  product(filled_up<LastLeft>(left + first * inner_, n, kTile, inner_), packed_->memory, result);
  std::copy_n(result, n * outer_, out + first * outer_);
}

void RightSide::multiply(const float* left, std::int64_t rows, float* out, bool add) const { in_tiles(left, rows, out, add); }
void RightSide::multiply(const Bfloat16* left, std::int64_t rows, float* out, bool add) const { in_tiles(left, rows, out, add); }

void sum_outer_products(const float* left, std::int64_t m, const float* right, std::int64_t n, std::int64_t rows, float* out) {
  stream();
  const auto sum = [&](std::int64_t chunk, float* mine) {
    const std::int64_t first = chunk * kChunkRows, count = std::min(kChunkRows, rows - first);
    const auto status = dnnl::sgemm('T', 'N', m, n, count, 1.0F, left + first * m, m, right + first * n, n, 0.0F, mine, n);
    ensure(status == dnnl::status::success, "a product of matrices is computed");
  };
  add_all_chunks(rows, m * n, alone(m * n, sum), out);
}

void sum_outer_products(const Bfloat16* left, std::int64_t m, const Bfloat16* right, std::int64_t n, std::int64_t rows, float* out) {
  stream();
  const auto leaf = [&](std::int64_t chunk, float* sum, bool add) {
    struct Left;
    struct Right;
    const std::int64_t first = chunk * kChunkRows, count = std::min(kChunkRows, rows - first), padded = (count + kRowStep - 1) / kRowStep * kRowStep;
    const Products& products = outer_products(m, n, padded);
    (add ? products.add : products.set)(filled_up<Left>(left + first * m, count, padded, m), filled_up<Right>(right + first * n, count, padded, n), sum);
  };
  add_all_chunks(rows, m * n, leaf, out);
}

void sum_rows(const float* scale, const float* right, std::int64_t n, std::int64_t rows, float* out) {
  sum_rows_by([&](float* sum, std::int64_t row) { scale ? add_scaled(sum, scale[row], right + row * n, n) : add_to(sum, right + row * n, n); }, n, rows, out);
}

void sum_rows(const Bfloat16* right, std::int64_t n, std::int64_t rows, float* out) {
  sum_rows_by([&](float* sum, std::int64_t row) { add_to(sum, right + row * n, n); }, n, rows, out);
}

}  // namespace epsim
