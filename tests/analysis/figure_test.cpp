#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <regex>

#include "analysis/plot/drawing.h"
#include "analysis/plot/layer_time.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

LayerTimeFigure sample(int groups, int bars) {
  LayerTimeFigure f{"a <b> & \"c\"", "sub", "layer time", "placement", bars > 1 ? "capacity.factor" : "", {}, ""};
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
  for (LayerTimeFigure f : {sample(1, 1), sample(12, 8), LayerTimeFigure{}, LayerTimeFigure{"t", "", "layer time", "g", "", {{"zero", {{}}}}, ""}}) {
    const std::string svg = to_svg(f);
    EXPECT_THAT(svg, HasSubstr("</svg>"));
    EXPECT_THAT(svg, Not(HasSubstr("nan")));
    EXPECT_THAT(svg, Not(HasSubstr("inf")));
  }
  EXPECT_EQ(count(to_svg(sample(3, 1)), "%"), 3U * 2 + 1 + 2);  // labels and titles of the drops, the legend, the background
}

/// A text of a document and the box that it takes, by the widths that `width_of` knows.
struct Box {
  std::string content;
  bool upright;
  double left, right, top, bottom;
};

std::vector<Box> texts(const std::string& svg) {
  static const std::regex text(R"re(<text x="([^"]+)" y="([^"]+)" text-anchor="(\w+)" font-size="([^"]+)" fill="[^"]+"([^>]*)>([^<]*)<)re");
  std::vector<Box> boxes;
  for (std::sregex_iterator it(svg.begin(), svg.end(), text), end; it != end; ++it) {
    const double x = std::stod((*it)[1]), y = std::stod((*it)[2]), size = std::stod((*it)[4]), width = width_of((*it)[6].str(), size);
    const double before = (*it)[3] == "start" ? 0 : (*it)[3] == "middle" ? width / 2 : width;
    const bool upright = (*it)[5].str().find("rotate(-90") != std::string::npos;
    boxes.push_back(upright ? Box{(*it)[6], true, x - size, x, y - (width - before), y + before} : Box{(*it)[6], false, x - before, x + width - before, y - size, y});
  }
  return boxes;
}

TEST(Figure, KeepsLongTextsInsideAndApart) {
  LayerTimeFigure f = sample(3, 3);
  f.title = std::string(90, 'n') + ": where the time goes";
  f.subtitle = "a model of which much is to be said on a machine of which more is to be said than a line of this figure can take";
  f.bar_title = "capacity, and " + std::string(100, 'k');
  for (auto& group : f.groups) {
    group.label = "affinity_eplb_with_a_long_name slots 24";
    group.bars[0].label = "megatron factor 1, order probability, overflow other_replica, " + std::string(40, 'w');
    group.bars[2].waited_s = 1e-3;
  }
  const std::string svg = to_svg(f);
  std::smatch size;
  ASSERT_TRUE(std::regex_search(svg, size, std::regex(R"re(viewBox="0 0 (\d+) (\d+)")re")));
  const std::vector<Box> boxes = texts(svg);
  for (const Box& box : boxes) {
    EXPECT_GE(box.left, 0) << box.content;
    EXPECT_LE(box.right, std::stod(size[1])) << box.content;
    EXPECT_LE(box.bottom, std::stod(size[2])) << box.content;
    for (const Box& other : boxes)
      EXPECT_FALSE(&box != &other && box.left + 1 < other.right && other.left + 1 < box.right && box.top + 1 < other.bottom && other.top + 1 < box.bottom) << box.content << " and " << other.content;
  }
}

TEST(Figure, IsLogarithmicWhereBarsWouldVanish) {
  LayerTimeFigure f{"t", "s", "layer time", "g", "", {{"short", {{"", 1e-6, 2e-6, 1e-6}}}, {"long", {{"", 1e-3, 2e-3, 1e-3}}}}, ""};
  const std::string svg = to_svg(f);
  EXPECT_THAT(svg, HasSubstr("layer time (ms; logarithmic, a bar's parts in proportion)"));
  EXPECT_THAT(svg, HasSubstr(">0.004<"));
  // The axis goes from 0.001 to 10 ms: 4 us are at log10(4) of four decades, 4 ms three decades above. Half of a bar is compute.
  std::vector<double> heights;
  static const std::regex compute(R"re(<rect x="[^"]+" y="[^"]+" width="46.0" height="([^"]+)" fill="#e69f00")re");
  for (std::sregex_iterator it(svg.begin(), svg.end(), compute), end; it != end; ++it) heights.push_back(std::stod((*it)[1]));
  ASSERT_EQ(heights.size(), 2U);
  EXPECT_NEAR(heights[0], 320 * std::log10(4.0) / 4 / 2, 0.01);
  EXPECT_NEAR(heights[1], 320 * (3 + std::log10(4.0)) / 4 / 2, 0.01);
  f.groups[1].bars[0].compute_s = f.groups[1].bars[0].dispatch_s = f.groups[1].bars[0].combine_s = 1e-4;
  EXPECT_THAT(to_svg(f), Not(HasSubstr("logarithmic")));
}

TEST(Figure, DrawsIntervalsAndNumbersThatStandOut) {
  LayerTimeFigure f = sample(2, 2);
  f.interval = "95 % interval";
  EXPECT_THAT(to_svg(f), Not(HasSubstr("95 % interval")));
  f.groups[1].bars[0].half_width_s = 5e-4;  // of 8 ms; the axis goes to 8 or 10 ms
  const std::string svg = to_svg(f);
  EXPECT_THAT(svg, HasSubstr("95 % interval"));
  std::vector<double> lengths;
  static const std::regex whisker(R"re(<path d="M[^ ]+ ([^h]+)h8M[^V]+V([^M]+)M[^"]+" fill="none" stroke="#222222")re");
  for (std::sregex_iterator it(svg.begin(), svg.end(), whisker), end; it != end; ++it) lengths.push_back(std::stod((*it)[2]) - std::stod((*it)[1]));
  ASSERT_EQ(lengths.size(), 2U);  // of the legend, and of the bar
  EXPECT_NEAR(lengths[1], 320 * 1.0 / 10, 0.02);
  EXPECT_EQ(count(svg, "paint-order=\"stroke\""), 4U + 2U);  // totals and drops
}

}  // namespace
}  // namespace epsim
