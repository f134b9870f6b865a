// moe_table [--quick]: experts forwards and backwards against oneDNN's own products of the same shapes in the same run, and the speed of routing. One core. Prints Markdown (tools/bench moe).
#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <dnnl.hpp>
#include <functional>
#include <numeric>
#include <string_view>

#include "base/rng.h"
#include "policies/plan.h"
#include "policies/routed.h"
#include "sim/moe/ffn.h"

namespace epsim {
namespace {

using Memory = dnnl::memory;

struct Sizes {
  std::int64_t hidden, ffn, rows;
};

std::vector<float> random_values(std::int64_t count) {
  Rng rng(1, Stream::test, static_cast<std::uint64_t>(count));
  std::vector<float> v(static_cast<std::size_t>(count));
  for (float& x : v) x = static_cast<float>(2 * rng.uniform() - 1);
  return v;
}

/// Seconds that the core worked for us: waiting for it does not count.
double processor_time() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

/// Of one of `times` in a row.
double seconds_of(const std::function<void()>& work, int times) {
  const double start = processor_time();
  for (int i = 0; i < times; ++i) work();
  return (processor_time() - start) / times;
}

/// Fastest times of several pieces of work, which take turns so that a slow moment of the machine meets all of them. A turn of a short piece repeats it for three thousandths of a second: what it needs lies in the cache.
std::vector<double> fastest(const std::vector<std::function<void()>>& works, int turns) {
  std::vector<double> best;
  for (const auto& work : works) work(), best.push_back(seconds_of(work, 1));
  std::vector<int> times;
  for (const double seconds : best) times.push_back(std::max(1, static_cast<int>(3e-3 / seconds)));
  for (int t = 0; t < turns; ++t)
    for (std::size_t i = 0; i < works.size(); ++i) best[i] = std::min(best[i], seconds_of(works[i], times[i]));
  return best;
}

/// oneDNN's product [m][inner] x [inner][n] in one call, the left side turned where `turned`, the right side packed before where it is weights.
class WholeProduct {
 public:
  WholeProduct(std::int64_t m, std::int64_t inner, std::int64_t n, bool turned, bool weights, Precision precision) : cpu_(dnnl::engine::kind::cpu, 0), stream_(cpu_) {
    const auto type = precision == Precision::bf16 ? Memory::data_type::bf16 : Memory::data_type::f32;
    const Memory::desc left({m, inner}, type, turned ? Memory::format_tag::ba : Memory::format_tag::ab);
    const Memory::desc right({inner, n}, type, weights ? Memory::format_tag::any : Memory::format_tag::ab), out({m, n}, Memory::data_type::f32, Memory::format_tag::ab);
    const dnnl::matmul::primitive_desc desc(dnnl::matmul::desc(left, right, out), cpu_);
    run_ = dnnl::matmul(desc);
    left_ = Memory(desc.src_desc(), cpu_), right_ = Memory(desc.weights_desc(), cpu_), out_ = Memory(desc.dst_desc(), cpu_);
    for (Memory* memory : {&left_, &right_}) std::fill_n(static_cast<char*>(memory->get_data_handle()), memory->get_desc().get_size(), char{0x3e});  // 0.19 in either format
  }
  void operator()() {
    run_.execute(stream_, {{DNNL_ARG_SRC, left_}, {DNNL_ARG_WEIGHTS, right_}, {DNNL_ARG_DST, out_}});
    stream_.wait();
  }

 private:
  dnnl::engine cpu_;
  dnnl::stream stream_;
  dnnl::matmul run_;
  Memory left_, right_, out_;
};

/// Our products of the same shapes on rows that are in the format already, with the same repetitions: an expert but for activation, rounding, and its having three matrices. `T` is a row's number.
template <class T>
class OurProducts {
 public:
  OurProducts(const FfnShape& s, const ExpertWeights& w, std::int64_t rows)
      : h_(s.hidden), f_(s.ffn), rows_(rows), wide_(static_cast<std::size_t>(rows * f_)), narrow_(static_cast<std::size_t>(rows * h_)), wide_out_(wide_.size()), narrow_out_(narrow_.size()), sum_(w.w1.size()), sum2_(sum_),
        to_ffn_(h_, f_, w.w1.data(), false, s.precision), to_hidden_(f_, h_, w.w2.data(), false, s.precision) {
    for (std::vector<T>* v : {&wide_, &narrow_}) std::memset(v->data(), 0x3e, v->size() * sizeof(T));
  }
  void forward() { to_ffn(), to_ffn(), to_hidden(false); }
  void backward() {
    to_ffn(), to_hidden(false), to_hidden(true);
    for (int i = 0; i < 2; ++i) sum_outer_products(narrow_.data(), h_, wide_.data(), f_, rows_, sum_.data());
    sum_outer_products(wide_.data(), f_, narrow_.data(), h_, rows_, sum2_.data());
  }

 private:
  void to_ffn() { to_ffn_.multiply(narrow_.data(), rows_, wide_out_.data()); }
  void to_hidden(bool add) { to_hidden_.multiply(wide_.data(), rows_, narrow_out_.data(), add); }
  std::int64_t h_, f_, rows_;
  std::vector<T> wide_, narrow_;
  std::vector<float> wide_out_, narrow_out_, sum_, sum2_;
  RightSide to_ffn_, to_hidden_;
};

template <class T>
void time_experts(const Sizes& z, Precision precision, int turns) {
  const auto [h, f, n] = z;
  const FfnShape shape{h, f, Activation::swiglu, precision};
  ExpertWeights weights, gradients;
  weights.w1 = random_values(h * f), weights.w3 = random_values(h * f), weights.w2 = random_values(h * f);
  gradients = weights;
  const FfnView view = view_of(weights, shape, 0);
  const std::vector<float> x = random_values(n * h), dy = random_values(n * h), scale(static_cast<std::size_t>(n), 0.5F);
  std::vector<float> g(static_cast<std::size_t>(n * f)), u(g), y(x), dx(x), dscale(scale);
  FfnFactors factors(shape, true, n);
  const FfnRows rows = factors.of({.rows = n, .x = x.data(), .dy = dy.data(), .scale = scale.data(), .g = g.data(), .u = u.data(), .dx = dx.data(), .dscale = dscale.data()});
  const auto in_blocks = [n = n](auto&& work) {  // as a layer does
    for (std::int64_t first = 0; first < n; first += kBlockRows) work(first, std::min(kBlockRows, n - first));
  };
  Ffn expert(shape, view);
  FfnBackward backward(shape, view);
  OurProducts<T> products(shape, weights, n);
  const auto go_forward = [&, h = h, f = f] {
    in_blocks([&](std::int64_t first, std::int64_t count) { expert.forward(x.data() + first * h, count, g.data() + first * f, u.data() + first * f, y.data() + first * h); });
  };
  const auto go_backward = [&] {
    in_blocks([&](std::int64_t first, std::int64_t count) { backward.backward(rows.part(first, count, shape)); });
    for (const FfnMatrix m : {FfnMatrix::w1, FfnMatrix::w3, FfnMatrix::w2}) weight_gradient(shape, rows, m, slice_of(gradients, shape, 0));
  };
  WholeProduct to_ffn(n, h, f, false, true, precision), to_hidden(n, f, h, false, true, precision), sum(h, n, f, true, false, precision), sum2(f, n, h, true, false, precision);
  const std::vector<double> best = fastest({go_forward, go_backward, [&] { to_ffn(), to_ffn(), to_hidden(); }, [&] { to_ffn(), to_hidden(), to_hidden(), sum(), sum(), sum2(); },
                                            [&] { expert = Ffn(shape, view); }, [&] { backward = FfnBackward(shape, view); }, [&] { products.forward(); }, [&] { products.backward(); }},
                                           turns);
  const double flops = 6e-9 * static_cast<double>(n) * static_cast<double>(h) * static_cast<double>(f);
  const auto columns = [&](double amount, double mine, double of_library, double packing, double alone) {
    fmt::print(" {:.0f} | {:.0f} % | {:.0f} % | {:.0f} % |", amount / mine, 100 * of_library / mine, 100 * of_library / alone, 100 * of_library / (mine + packing));
  };
  fmt::print("| {} x {} | {} | {} |", h, f, n, name_of(precision));
  columns(flops, best[0], best[2], best[4], best[6]);
  columns(2 * flops, best[1], best[3], best[5], best[7]);
  fmt::print("\n");
}

/// Scores of tokens for 256 experts, as a layer computes them: the gate is packed at each call.
void time_gate(std::int64_t hidden, std::int64_t tokens, int turns) {
  constexpr std::int64_t kExperts = 256;
  const std::vector<float> x = random_values(tokens * hidden), gate = random_values(hidden * kExperts);
  std::vector<float> scores(static_cast<std::size_t>(tokens * kExperts));
  WholeProduct product(tokens, hidden, kExperts, false, true, Precision::fp32);
  const std::vector<double> best = fastest({[&] { RightSide(hidden, kExperts, gate.data(), false, Precision::fp32).multiply(x.data(), tokens, scores.data()); }, [&] { product(); }}, turns);
  fmt::print("| {} | {} | {:.0f} | {:.0f} % |\n", hidden, tokens, 2e-9 * static_cast<double>(tokens * hidden * kExperts) / best[0], 100 * best[1] / best[0]);
}

void time_routing(const char* name, const char* router_yaml, const char* capacity_yaml, int turns) {
  constexpr int kExperts = 256, kTopK = 8;
  constexpr std::int64_t kTokens = 4096;
  Shape shape;
  shape.experts = kExperts, shape.top_k = kTopK, shape.ranks = shape.nodes = 1;
  Diagnostics problems;
  const auto setting = [](const char* yaml) { return parse_yaml(std::make_shared<SourceText>(SourceText{"bench", yaml})); };
  const Router router = builtin_routers().make(setting(router_yaml), problems, &shape);
  const Capacity capacity = builtin_capacities().make(setting(capacity_yaml), problems, &shape);
  problems.check();
  const std::vector<float> logits = random_values(kTokens * kExperts);
  GateBatch batch;
  batch.tokens = kTokens, batch.experts = kExperts, batch.logits = logits;
  Routed routed;
  std::vector<float> dlogits(logits.size());
  const std::vector<double> best =
      fastest({[&] { routed = route_batch(router, capacity, batch); }, [&] { route_backward(router, capacity, batch, routed, routed.weight, dlogits); }}, turns);
  const double choices = static_cast<double>(kTokens * kTopK) / 1e6;
  fmt::print("| {} | {:.1f} | {:.1f} |\n", name, choices / best[0], choices / best[1]);
}

/// Scores or choices that lie ready in the cache, routed, counted, limited and planned with contiguous experts on 64 ranks, in million choices a second.
void time_planning(const char* name, Source::Yields yields, const char* router_yaml, const char* capacity_yaml, int turns) {
  constexpr int kExperts = 256, kTopK = 8, kRanks = 64;
  constexpr std::int64_t kTokens = 16'384, kReady = 512;
  Diagnostics problems;
  Shape shape;
  shape.experts = kExperts, shape.top_k = kTopK, shape.ranks = kRanks, shape.nodes = 8;
  const auto setting = [](const std::string& yaml) { return parse_yaml(std::make_shared<SourceText>(SourceText{"bench", yaml})); };
  const Router router = builtin_routers().make(setting(router_yaml), problems, &shape);
  const Capacity capacity = builtin_capacities().make(setting(capacity_yaml), problems, &shape);
  const ReplicaRule replica = builtin_replica_rules().make(setting("nearest"), problems, &shape);
  const Topology topology = builtin_clusters().make(setting("rail_fat_tree: {nodes: 8, ranks_per_node: 8, device: h800}"), problems);
  problems.check();
  Source source;
  source.yields = yields;
  source.first_token = token_blocks(kTokens, kRanks);
  const std::vector<float> ready = random_values(32 * kExperts);
  source.scores = [&](int, std::int64_t, std::int64_t, std::span<float> scores) { std::copy_n(ready.begin(), scores.size(), scores.begin()); };
  std::vector<std::uint16_t> chosen(kReady * kTopK);
  for (std::size_t i = 0; i < chosen.size(); ++i) chosen[i] = static_cast<std::uint16_t>((i % kTopK * 32 + i * i % 31) % kExperts);
  source.choices = [&](int, std::int64_t first, std::int64_t count, std::span<std::uint16_t> experts, std::span<float>) {
    for (std::int64_t t = 0; t < count; t += kReady)
      std::copy_n(chosen.begin() + (first + t) % kReady * kTopK, std::min(count - t, kReady - (first + t) % kReady) * kTopK, experts.begin() + t * kTopK);
  };
  std::vector<std::uint16_t> expert_of_slot(kExperts);
  std::vector<std::int32_t> first_slot;
  std::iota(expert_of_slot.begin(), expert_of_slot.end(), std::uint16_t{0});
  for (int r = 0; r <= kRanks; ++r) first_slot.push_back(r * kExperts / kRanks);
  Routing routing = make_routing(source, kExperts, kTopK, router);
  std::int64_t copies = 0;
  const std::vector<double> best = fastest({[&] {
                                             route(source, router, 0, 0, 0, kRanks, routing);
                                             const Plan plan = make_plan(0, routing, capacity, Placement::from_experts(expert_of_slot, first_slot, kExperts), replica, topology);
                                             copies += plan.copies(0, 0);
                                           }},
                                           turns);
  fmt::print("| {} | {:.1f} |\n", name, static_cast<double>(kTokens * kTopK) / 1e6 / best[0]);
}

}  // namespace
}  // namespace epsim

int main(int count, char** arguments) {
  using epsim::Precision;
  const bool quick = count == 2 && std::string_view(arguments[1]) == "--quick";
  if (count > 1 && !quick) {
    fmt::print(stderr, "usage: moe_table [--quick]\n");
    return 2;
  }
  setenv("EPSIM_THREADS", "1", 1);
  omp_set_num_threads(1);
  const int turns = quick ? 3 : 25;
  fmt::print(
      "Experts on one core: GFLOP/s, and the share of what oneDNN's own products of the same shapes reach in the same run: of the expert, of our products of the same\n"
      "shapes alone, and of the expert with packing its weights anew (oneDNN's are packed before).\n\n"
      "| hidden x ffn | rows | format | forward | of oneDNN | products alone | with packing | backward | of oneDNN | products alone | with packing |\n"
      "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
  for (const Precision precision : {Precision::fp32, Precision::bf16})
    for (const epsim::Sizes& z : {epsim::Sizes{256, 512, 64}, {256, 512, 512}, {512, 1024, 64}, {512, 1024, 512}, {512, 1024, 2048}, {1024, 2048, 512}})
      if (!quick || z.hidden < 512) precision == Precision::bf16 ? epsim::time_experts<epsim::Bfloat16>(z, precision, turns) : epsim::time_experts<float>(z, precision, turns);
  fmt::print("\nGate on one core: scores for 256 experts in fp32, packing the gate included.\n\n| hidden | tokens | GFLOP/s | of oneDNN |\n| --- | --- | --- | --- |\n");
  for (const std::int64_t hidden : {2048, 7168})
    for (const std::int64_t tokens : {512, 4096})
      if (!quick || hidden * tokens < 2'000'000) epsim::time_gate(hidden, tokens, turns);
  fmt::print("\nRouting on one core, 4,096 tokens, top-8 of 256 experts, million choices a second.\n\n| router | forward | backward |\n| --- | --- | --- |\n");
  epsim::time_routing("topk", "topk", "dropless", turns);
  epsim::time_routing("grouped_topk, 4 of 8 groups", "grouped_topk: {groups: 8, groups_kept: 4}", "dropless", turns);
  epsim::time_routing("topk, capacity 1 by probability", "topk", "megatron: {factor: 1}", turns);
  fmt::print("\nRouting, capacity and plan of 16,384 tokens, top-8 of 256 experts, on 64 ranks, in million choices a second.\n\n| from | speed |\n| --- | --- |\n");
  epsim::time_planning("scores, topk", epsim::Source::Yields::scores, "topk", "dropless", turns);
  epsim::time_planning("scores, topk, capacity 1", epsim::Source::Yields::scores, "topk", "megatron: {factor: 1}", turns);
  epsim::time_planning("scores, grouped_topk, 4 of 8 groups", epsim::Source::Yields::scores, "grouped_topk: {groups: 8, groups_kept: 4}", "dropless", turns);
  epsim::time_planning("choices", epsim::Source::Yields::choices, "topk", "dropless", turns);
  epsim::time_planning("choices, capacity 1 in token order", epsim::Source::Yields::choices, "topk", "fastmoe: {factor: 1}", turns);
}
