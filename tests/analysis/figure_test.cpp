#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "analysis/plot/layer_time.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

LayerTimeFigure sample(int groups, int bars) {
  LayerTimeFigure f{"a <b> & \"c\"", "sub", "layer time", "placement", bars > 1 ? "capacity.factor" : "", {}};
  for (int g = 0; g < groups; ++g) {
    f.groups.push_back({"group " + std::to_string(g), {}});
    for (int b = 0; b < bars; ++b) f.groups.back().bars.push_back({bars > 1 ? std::to_string(b) : "", 1e-3, 2e-3 * (g + 1), 3e-3, 5e-3, b == 0 ? 0.021 : 0});
  }
  return f;
}

std::size_t count(const std::string& text, const std::string& what) {
  std::size_t n = 0;
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++n;
  return n;
}

TEST(Figure, DrawsEveryPartOfEveryBar) {
  const std::string svg = to_svg(sample(3, 2));
  EXPECT_EQ(count(svg, "<g><title>"), 6U);
  EXPECT_EQ(count(svg, "<rect"), 1 + 3 + 6U * 3);              // background, legend, parts
  EXPECT_EQ(count(svg, "stroke=\"#ffffff\" stroke-width=\"5\""), 6U);  // a lower bound on each
  EXPECT_EQ(count(svg, "−2.1%"), 3U);                          // only where something was dropped
  EXPECT_THAT(svg, HasSubstr("layer time (ms)"));
  EXPECT_THAT(svg, HasSubstr("capacity.factor, by placement"));
  EXPECT_THAT(svg, HasSubstr("a &lt;b&gt; &amp; &quot;c&quot;"));
  EXPECT_THAT(svg, Not(HasSubstr("<b>")));
  EXPECT_EQ(svg, to_svg(sample(3, 2)));
}

TEST(Figure, TakesOneAxisManyBarsAndNoTime) {
  for (LayerTimeFigure f : {sample(1, 1), sample(12, 8), LayerTimeFigure{}, LayerTimeFigure{"t", "", "layer time", "g", "", {{"zero", {{}}}}}}) {
    const std::string svg = to_svg(f);
    EXPECT_THAT(svg, HasSubstr("</svg>"));
    EXPECT_THAT(svg, Not(HasSubstr("nan")));
    EXPECT_THAT(svg, Not(HasSubstr("inf")));
  }
  EXPECT_EQ(count(to_svg(sample(3, 1)), "%"), 3U * 2 + 1 + 2);  // labels and titles of the drops, the legend, the background
}

}  // namespace
}  // namespace epsim
