// epsim layer, as a user calls it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/npz.h"
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
  std::string bytes() const { return npz_.bytes(); }

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
