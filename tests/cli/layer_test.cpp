// epsim layer, as a user calls it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/npz.h"
#include "base/rng.h"
#include "tests/support/program.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;
using testing::Outcome;
using testing::run_program;
using testing::Workspace;

/// An .npz of arrays whose values are all alike.
class Arrays {
 public:
  Arrays& add(const std::string& name, std::vector<std::int64_t> shape, float value = 0.5F) {
    std::int64_t count = 1;
    for (const std::int64_t n : shape) count *= n;
    npz_.add(name, std::move(shape), std::vector<float>(static_cast<std::size_t>(count), value));
    return *this;
  }
  Arrays& add_integers(const std::string& name, std::vector<std::int64_t> shape, const std::vector<std::int64_t>& values) {
    npz_.add(name, std::move(shape), values);
    return *this;
  }
  Arrays& add_random(const std::string& name, std::vector<std::int64_t> shape, std::uint64_t seed) {
    Rng rng(seed, Stream::test);
    std::int64_t count = 1;
    for (const std::int64_t n : shape) count *= n;
    std::vector<float>& of_array = values[name];
    while (static_cast<std::int64_t>(of_array.size()) < count) of_array.push_back(static_cast<float>(rng.normal()));
    npz_.add(name, std::move(shape), of_array);
    return *this;
  }
  std::string bytes() const { return npz_.bytes(); }

  std::map<std::string, std::vector<float>> values;  ///< of random arrays

 private:
  NpzWriter npz_;
};

Arrays whole() {
  Arrays a;
  return a.add("x", {3, 2}).add("gate", {2, 4}).add("w1", {4, 2, 5}).add("w3", {4, 2, 5}).add("w2", {4, 5, 2}).add("r", {3, 2});
}

TEST(LayerVerb, WritesResultsAndGradients) {
  const Workspace space("epsim_layer");
  const std::string in = space.write("in.npz", whole().bytes()), out = (space.root / "out.npz").string();
  const Outcome r = run_program({"layer", "--inputs", in, "--set", "top_k=2", "--out", out});
  EXPECT_EQ(r.status, 0) << r.err;
  EXPECT_THAT(r.out, HasSubstr("3 tokens, 4 experts, 6 of 6 choices kept"));
  const auto arrays = read_npz(read_text(out));
  // All logits are alike: experts 0 and 1, half the weight each, and g = u = 1/2: y = 5/2 times the activation.
  const double g = 0.5, s = 1 / (1 + std::exp(-g)), y = 5 * 0.5 * g * s * g;
  for (const double v : arrays.at("y").floats) EXPECT_NEAR(v, y, 1e-6);
  EXPECT_EQ(arrays.at("expert_ids").integers, (std::vector<std::int64_t>{0, 1, 0, 1, 0, 1}));
  EXPECT_EQ(arrays.at("dw1").shape, (std::vector<std::int64_t>{4, 2, 5}));
  // dw2 of expert 0: three tokens' weight times activation times r.
  EXPECT_NEAR(arrays.at("dw2").floats.front(), 3 * 0.5 * g * s * g * 0.5, 1e-6);
  EXPECT_EQ(arrays.at("dw2").floats.back(), 0);  // expert 3 has no tokens
  for (const char* name : {"dx", "dgate", "dw3"}) EXPECT_TRUE(arrays.contains(name)) << name;
  // The same bytes again, and with another number of threads; results may be read as inputs.
  const std::string first = testing::bytes_of(out);
  EXPECT_EQ(run_program({"layer", "--inputs", in, "--set", "top_k=2", "--out", out}, "EPSIM_THREADS=3").status, 0);
  EXPECT_EQ(testing::bytes_of(out), first);
}

TEST(LayerVerb, WithoutRThereAreNoGradients) {
  const Workspace space("epsim_layer");
  Arrays a;
  a.add("x", {3, 2}).add("gate", {2, 4}).add("w1", {4, 2, 5}).add("w2", {4, 5, 2});
  const std::string out = (space.root / "out.npz").string();
  const Outcome r = run_program({"layer", "--inputs", space.write("in.npz", a.bytes()), "--set", "top_k=1", "--set", "activation=relu", "--out", out});
  EXPECT_EQ(r.status, 0) << r.err;
  const auto arrays = read_npz(read_text(out));
  EXPECT_TRUE(arrays.contains("y"));
  EXPECT_FALSE(arrays.contains("dx"));
}

TEST(LayerVerb, KeepsTheShapeOfWhatItIsGiven) {
  const Workspace space("epsim_layer");
  Arrays a = whole();
  a.add("shared_w1", {2, 3}).add("shared_w3", {2, 3}).add("shared_w2", {3, 2}).add("shared_gate", {2, 1}).add("linear_bias", {4});
  const std::string out = (space.root / "out.npz").string();
  const Outcome r = run_program({"layer", "--inputs", space.write("in.npz", a.bytes()), "--set", "top_k=1", "--out", out});
  EXPECT_EQ(r.status, 0) << r.err;
  const auto arrays = read_npz(read_text(out));
  EXPECT_EQ(arrays.at("dshared_gate").shape, (std::vector<std::int64_t>{2, 1}));
  EXPECT_EQ(arrays.at("dlinear_bias").shape, (std::vector<std::int64_t>{4}));
}

/// Two experts that compute and, behind them, a zero one, an identity and a constant one.
Arrays with_idle(float constant = 3) {
  Arrays a;
  return a.add("x", {3, 2}).add("gate", {2, 5}, 0).add("w1", {2, 2, 5}).add("w3", {2, 2, 5}).add("w2", {2, 5, 2}).add("r", {3, 2}).add("constant", {1, 2}, constant).add("constant_gate", {1, 2, 2}, 0);
}

TEST(LayerVerb, TakesExpertsThatComputeNothing) {
  const Workspace space("epsim_layer");
  const std::string in = space.write("in.npz", with_idle().bytes()), out = (space.root / "out.npz").string();
  const Outcome r = run_program({"layer", "--inputs", in, "--set", "top_k=5", "--set", "router={zero_experts: {zero: 1, identity: 1, constant: 1}}", "--out", out});
  EXPECT_EQ(r.status, 0) << r.err;
  EXPECT_THAT(r.out, HasSubstr("3 tokens, 2 experts, 15 of 15 choices kept, 9 of experts that compute nothing"));
  const auto arrays = read_npz(read_text(out));
  // Every token takes all: a quarter of two experts, of x = 1/2, and of (x + 3) / 2; the zero expert weighs nothing.
  const double g = 0.5, f = 5 * 0.5 * g / (1 + std::exp(-g)) * g;
  for (const double v : arrays.at("y").floats) EXPECT_NEAR(v, (2 * f + 0.5 + 1.75) / 4, 1e-6);
  EXPECT_EQ(arrays.at("dgate").shape, (std::vector<std::int64_t>{2, 5}));
  for (const double v : arrays.at("dconstant").floats) EXPECT_NEAR(v, 3 * 0.25 * 0.5 * 0.5, 1e-6);  // tokens x weight x share x r
  EXPECT_EQ(arrays.at("dconstant_gate").shape, (std::vector<std::int64_t>{1, 2, 2}));
}

// What routers and losses need besides logits is read and used as `epsim route` does.
TEST(LayerVerb, RoutesAsRouteDoes) {
  const Workspace space("epsim_layer");
  Arrays a;
  a.add_random("x", {8, 3}, 1).add_random("gate", {3, 6}, 2).add("w1", {4, 3, 5}).add("w3", {4, 3, 5}).add("w2", {4, 5, 3}).add("r", {8, 3}, 0).add_random("noise", {8, 6}, 3).add_random("bias", {6}, 4);
  a.add("constant", {1, 3}).add("constant_gate", {1, 3, 2}).add_integers("token_ids", {8}, {7, 9, 7, 1, 2, 3, 4, 5}).add_integers("attention_mask", {8}, {1, 0, 1, 1, 0, 1, 0, 1});
  const std::string in = space.write("in.npz", a.bytes()), routed = (space.root / "routed.npz").string(), layer = (space.root / "layer.npz").string();
  const std::string idle = "router={zero_experts: {identity: 1, constant: 1}}";
  const auto expect_alike = [&](const std::vector<std::string>& settings) {
    SCOPED_TRACE(settings.front() + " " + settings.back());
    std::vector<std::string> of_route = {"route", "--logits", in, "--out", routed}, of_layer = {"layer", "--inputs", in, "--out", layer};
    for (const std::string& s : settings)
      for (auto* arguments : {&of_route, &of_layer}) arguments->insert(arguments->end(), {"--set", s});
    ASSERT_EQ(run_program(of_route).status, 0);
    const Outcome r = run_program(of_layer);
    ASSERT_EQ(r.status, 0) << r.err;
    const auto theirs = read_npz(read_text(routed)), ours = read_npz(read_text(layer));
    EXPECT_EQ(ours.at("expert_ids").integers, theirs.at("expert_ids").integers);
    EXPECT_EQ(ours.at("kept").integers, theirs.at("kept").integers);
    for (const char* name : {"weights", "weights_after"})
      for (std::size_t i = 0; i < theirs.at(name).floats.size(); ++i) EXPECT_NEAR(ours.at(name).floats[i], theirs.at(name).floats[i], 1e-5);
    if (!theirs.contains("grad_z")) return;
    // r is 0, so all gradients are of the loss: that of the gate is x^T dlogits.
    for (std::int64_t i = 0; i < 3; ++i)
      for (std::int64_t e = 0; e < 6; ++e) {
        double sum = 0;
        for (std::int64_t t = 0; t < 8; ++t) sum += a.values.at("x")[static_cast<std::size_t>(t * 3 + i)] * theirs.at("grad_z").floats[static_cast<std::size_t>(t * 6 + e)];
        EXPECT_NEAR(ours.at("dgate").floats[static_cast<std::size_t>(i * 6 + e)], sum, 1e-5);
      }
  };
  expect_alike({"top_k=2", idle});
  expect_alike({"top_k=2", idle, "capacity={megatron: {factor: 1/2}}", "ranks=2"});
  expect_alike({"top_k=2", idle, "losses=z"});

  Arrays plain;
  plain.add_random("x", {8, 3}, 1).add_random("gate", {3, 6}, 2).add("w1", {6, 3, 5}).add("w3", {6, 3, 5}).add("w2", {6, 5, 3}).add_random("noise", {8, 6}, 3).add_integers("token_ids", {8}, {7, 9, 7, 1, 2, 3, 4, 5});
  space.write("in.npz", plain.bytes());
  expect_alike({"top_k=2", "router=hash"});
  expect_alike({"top_k=2", "training=true", "router=noisy_topk"});
}

// I11, for this verb: whatever is wrong is said, all at once, and nothing is written.
TEST(LayerVerb, RefusesWhatItCannotUse) {
  const Workspace space("epsim_layer");
  const std::string good = space.write("in.npz", whole().bytes()), out = (space.root / "out.npz").string();
  const auto said = [&](const std::string& inputs, std::vector<std::string> settings) {
    std::vector<std::string> arguments = {"layer", "--inputs", inputs, "--out", out};
    for (const std::string& s : settings) arguments.insert(arguments.end(), {"--set", s});
    const Outcome r = run_program(arguments);
    EXPECT_EQ(r.status, 2) << r.out;
    EXPECT_FALSE(std::filesystem::exists(out));
    return r.err;
  };
  EXPECT_THAT(said(good, {}), HasSubstr("top_k"));
  EXPECT_THAT(said(good, {"top_k=5"}), HasSubstr("top_k is 5, but there are 4 experts"));
  EXPECT_THAT(said(good, {"top_k=1", "activation=swigul"}), HasSubstr("swiglu"));
  EXPECT_THAT(said(good, {"top_k=1", "activaton=gelu"}), HasSubstr("did you mean `activation`?"));
  EXPECT_THAT(said(good, {"top_k=1", "router=topkk"}), HasSubstr("did you mean `topk`?"));
  EXPECT_THAT(said(good, {"top_k=1", "precision=fp8"}), HasSubstr("bf16"));
  EXPECT_THAT(said((space.root / "none.npz").string(), {"top_k=1"}), HasSubstr("none.npz"));
  EXPECT_THAT(said(space.write("cut.npz", whole().bytes().substr(0, 700)), {"top_k=1"}), HasSubstr("zip"));

  const auto with = [&](const char* name, std::vector<std::int64_t> shape, float value = 0.5F) {
    Arrays a = whole();
    a.add(name, std::move(shape), value);
    return space.write("odd.npz", a.bytes());
  };
  EXPECT_THAT(said(with("w4", {4, 2, 5}), {"top_k=1"}), HasSubstr("array `w4` is not known, did you mean"));
  EXPECT_THAT(said(with("b1", {4, 6}), {"top_k=1"}), HasSubstr("array `b1` has the shape [4,6], expected [4,5]"));
  EXPECT_THAT(said(with("b1", {4, 5}, NAN), {"top_k=1"}), HasSubstr("array `b1` holds a number that is not finite"));
  EXPECT_THAT(said(with("shared_w1", {2, 3}), {"top_k=1"}), HasSubstr("there is `shared_w1` but no `shared_w2`"));
  EXPECT_THAT(said(with("shared_gate", {2}), {"top_k=1"}), HasSubstr("there is `shared_gate` but no `shared_w1`"));
  EXPECT_THAT(said(with("x", {3, 2}), {"top_k=1"}), HasSubstr("is there twice"));

  // Experts that compute nothing: gate, arrays and router must agree.
  const std::string idle = space.write("idle.npz", with_idle().bytes());
  EXPECT_THAT(said(idle, {"top_k=1"}), HasSubstr("the gate has scores for 3 experts behind the 2 of `w1`, but the router knows of 0"));
  EXPECT_THAT(said(idle, {"top_k=1", "router={zero_experts: {zero: 3}}"}), HasSubstr("the router knows of 0 constant experts, but there are `constant` and `constant_gate` of 1"));
  EXPECT_THAT(said(idle, {"top_k=1", "weigh=input", "router={zero_experts: {zero: 1, identity: 1, constant: 1}}"}), HasSubstr("is not weighed before"));
  EXPECT_THAT(said(good, {"top_k=1", "router={zero_experts: {zero: 3}}"}), HasSubstr("the gate has scores for 0 experts behind the 4 of `w1`, but the router knows of 3"));
  EXPECT_THAT(said(good, {"top_k=1", "ranks=2"}), HasSubstr("2 ranks do not divide 3 tokens"));
  EXPECT_THAT(said(with("constant", {1, 2}), {"top_k=1"}), HasSubstr("array `constant` has 1 experts, but `gate` has scores for 0 behind those of `w1`"));
  EXPECT_THAT(said(with("token_ids", {3}), {"top_k=1"}), HasSubstr("array `token_ids` holds floats, expected integers"));
  EXPECT_THAT(said(with("noise", {3, 3}), {"top_k=1"}), HasSubstr("array `noise` has the shape [3,3], expected [3,4]"));

  Arrays none;
  none.add("x", {3}).add("w1", {4, 2, 5});
  const std::string all = said(space.write("less.npz", none.bytes()), {"top_k=1", "router=topkk"});
  for (const char* part : {"array `x` has the shape [3], expected [tokens,hidden]", "there is no array `gate`", "there is no array `w2`", "did you mean `topk`?"}) EXPECT_THAT(all, HasSubstr(part));
  Arrays ungated;
  ungated.add("x", {3, 2}).add("gate", {2, 4}).add("w1", {4, 2, 5}).add("w2", {4, 5, 2});
  EXPECT_THAT(said(space.write("ungated.npz", ungated.bytes()), {"top_k=1"}), HasSubstr("`swiglu` needs an array `w3`"));
}

}  // namespace
}  // namespace epsim
