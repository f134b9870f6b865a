#include "sim/moe/expert_rows.h"

#include <algorithm>

#include "base/check.h"
#include "sim/moe/vectors.h"

namespace epsim {
namespace {

/// Where a row of an expert lies, and where its token stands in global order.
struct RowOf {
  std::int64_t place;
  const ExpertRows* call;
  std::int64_t row;
};

}  // namespace

void ExpertRows::forward(const ExpertBank& experts, int expert, std::span<const float> in, std::span<float> out) {
  x.assign(in.begin(), in.end());
  g.resize(in.size() / static_cast<std::size_t>(experts.hidden()) * static_cast<std::size_t>(experts.ffn(expert)));
  u.resize(g.size());
  experts.forward(expert, in, out, g, u);
}

void ExpertRows::backward(const ExpertBank& experts, int expert, std::span<const float> in, std::span<float> out) {
  ensure(in.size() == x.size(), "the rows of a call are the same in both passes");
  dy.assign(in.begin(), in.end());
  for (std::vector<float>* v : {&a, &dg, &du}) v->resize(g.size());
  const auto rows = static_cast<std::int64_t>(in.size()) / experts.hidden();
  const std::vector<float> ones(static_cast<std::size_t>(rows), 1.0F);
  d_weight.resize(ones.size());
  experts.backward(expert, {rows, x.data(), dy.data(), ones.data(), g.data(), u.data(), a.data(), dg.data(), du.data(), {}, out.data(), d_weight.data()});
}

std::vector<float> weight_gradients(const FfnShape& s, std::span<const ExpertRows* const> calls, std::span<const float> weight) {
  std::vector<RowOf> order;
  for (const ExpertRows* call : calls)
    for (std::size_t i = 0; i < call->place.size(); ++i) order.push_back({call->place[i], call, static_cast<std::int64_t>(i)});
  std::ranges::sort(order, {}, &RowOf::place);
  const auto rows = static_cast<std::int64_t>(order.size());
  const auto sized = [rows](std::int64_t width) { return std::vector<float>(static_cast<std::size_t>(rows * width)); };
  std::vector<float> x = sized(s.hidden), dy = sized(s.hidden), a = sized(s.ffn), dg = sized(s.ffn), du = sized(s.ffn);
  for (std::int64_t i = 0; i < rows; ++i) {
    const RowOf& from = order[static_cast<std::size_t>(i)];
    const auto copy = [&](const std::vector<float>& all, std::int64_t width, std::vector<float>& to) { std::copy_n(all.begin() + from.row * width, width, to.begin() + i * width); };
    copy(from.call->x, s.hidden, x), copy(from.call->dy, s.hidden, dy);
    copy(from.call->a, s.ffn, a), copy(from.call->dg, s.ffn, dg), copy(from.call->du, s.ffn, du);
    if (weight.empty()) continue;
    for (std::vector<float>* v : {&a, &dg, &du}) scale_by(v->data() + i * s.ffn, weight[static_cast<std::size_t>(from.place)], s.ffn);
  }
  FfnRows all;
  all.rows = rows, all.x = x.data(), all.dy = dy.data(), all.a = a.data(), all.dg = dg.data(), all.du = du.data();
  std::vector<float> gradients(static_cast<std::size_t>(3 * s.hidden * s.ffn));
  FfnSlice out;
  out.w1 = gradients.data(), out.w3 = out.w1 + s.hidden * s.ffn, out.w2 = out.w3 + s.hidden * s.ffn;
  for (const FfnMatrix matrix : {FfnMatrix::w1, FfnMatrix::w3, FfnMatrix::w2}) weight_gradient(s, all, matrix, out);
  return gradients;
}

std::vector<float> add_replicas(std::span<const std::vector<float>> parts) {
  std::vector<float> sum = parts.front();
  for (const std::vector<float>& part : parts.subspan(1)) add_to(sum.data(), part.data(), static_cast<std::int64_t>(sum.size()));
  return sum;
}

}  // namespace epsim
