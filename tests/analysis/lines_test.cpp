#include "analysis/plot/lines.h"

#include <gmock/gmock.h>

#include <cmath>
#include <regex>

namespace epsim {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

LinesFigure sample() {
  LinesFigure f;
  f.title = "a <b> & \"c\"", f.subtitle = "sub", f.x_title = "step", f.series = {"one", "two"};
  f.panels = {{"loss", {{{0, 50, 100}, {4, 3, 2}, 0}, {{0, 50, 100}, {4, NAN, 3}, 1}}, true}, {"share", {{{0, 100}, {0.5, 0.75}, 0}}, false}};
  return f;
}

std::vector<std::string> matches(const std::string& text, const std::string& pattern) {
  std::vector<std::string> found;
  const std::regex of(pattern);
  for (std::sregex_iterator it(text.begin(), text.end(), of), end; it != end; ++it) found.push_back((*it)[1]);
  return found;
}

// Curves are the paths that are not filled: M x y, then L x y for each further point.
std::vector<std::string> curves(const std::string& svg) { return matches(svg, "<path d=\"([^\"]*)\" fill=\"none\""); }

TEST(Lines, DrawsEachPointWhereItsNumbersSay) {
  const std::string svg = to_svg(sample());
  const std::vector<std::string> drawn = curves(svg);
  ASSERT_EQ(drawn.size(), 3U);
  // The horizontal axis goes from 0 to 100 over 600 units, a panel's from 0 to 4 over 210: half as large is half as high.
  const std::vector<std::string> x = matches(drawn[0], "[ML]([0-9.]+) "), y = matches(drawn[0], " ([0-9.]+)");
  ASSERT_EQ(x.size(), 3U);
  EXPECT_NEAR(std::stod(x[2]) - std::stod(x[0]), 600, 0.11);
  EXPECT_NEAR(std::stod(x[1]), (std::stod(x[0]) + std::stod(x[2])) / 2, 0.11);
  EXPECT_NEAR(std::stod(y[2]) - std::stod(y[0]), 210 / 2.0, 0.11);
  EXPECT_EQ(matches(drawn[1], "[ML]([0-9.]+) ").size(), 2U);  // without the point that is no number
  // Curves of one series have one colour, in every panel; those of another have another.
  const std::vector<std::string> colours = matches(svg, "fill=\"none\" stroke=\"(#[0-9a-f]+)\"");
  ASSERT_EQ(colours.size(), 3U);
  EXPECT_EQ(colours[0], colours[2]);
  EXPECT_NE(colours[0], colours[1]);
}

TEST(Lines, AxesBeginAtZeroOrBelowTheLowestPoint) {
  LinesFigure f = sample();
  const auto has_tick = [](const LinesFigure& figure, const std::string& tick) { return to_svg(figure).find(">" + tick + "<") != std::string::npos; };
  f.panels = {{"loss", {{{0, 1000}, {20, 30}, 0}}, true}};
  EXPECT_TRUE(has_tick(f, "10"));
  f.panels[0].from_zero = false;
  EXPECT_FALSE(has_tick(f, "10"));
  EXPECT_TRUE(has_tick(f, "20"));
}

TEST(Lines, SaysWhatItShows) {
  const std::string svg = to_svg(sample());
  for (const char* text : {"loss", "share", "step", "one", "two", "sub", "a &lt;b&gt; &amp; &quot;c&quot;"}) EXPECT_THAT(svg, HasSubstr(text));
  EXPECT_THAT(svg, Not(HasSubstr("<b>")));
  EXPECT_EQ(svg, to_svg(sample()));
}

TEST(Lines, TakesManySeriesOnePointAndNone) {
  LinesFigure many = sample();
  many.series.clear(), many.panels[0].lines.clear();
  for (int s = 0; s < 10; ++s) many.series.push_back("series " + std::to_string(s)), many.panels[0].lines.push_back({{0, 1}, {double(s), 1}, s});
  // The ninth takes the first's colour again, dashed: in the legend and as a curve.
  EXPECT_EQ(matches(to_svg(many), "(stroke-dasharray)").size(), 4U);
  LinesFigure point = sample(), none = sample();
  point.panels = {{"p", {{{3}, {2}, 0}}, false}};
  none.panels = {{"p", {{{1, 2}, {NAN, INFINITY}, 0}}, false}};
  for (const LinesFigure& f : {point, none, LinesFigure{}}) {
    const std::string svg = to_svg(f);
    EXPECT_THAT(svg, HasSubstr("</svg>"));
    EXPECT_THAT(svg, Not(HasSubstr("nan")));
    EXPECT_THAT(svg, Not(HasSubstr("inf")));
  }
  EXPECT_TRUE(curves(to_svg(none)).empty());
}

// Marks are closed outlines on white.
std::vector<std::string> marks(const std::string& svg) { return matches(svg, "<path d=\"M([0-9.]+ [0-9.]+)[^\"]*z\" fill=\"#ffffff\""); }

TEST(Lines, ShowsACurveOfOnePoint) {
  LinesFigure f = sample();
  EXPECT_TRUE(marks(to_svg(f)).empty());
  f.panels = {{"p", {{{10}, {2}, 0}, {{5, 10}, {NAN, 2}, 1}}, true}};
  const std::vector<std::string> drawn = marks(to_svg(f));
  ASSERT_EQ(drawn.size(), 4U);  // two in the legend
  EXPECT_EQ(drawn[2], drawn[3]);
}

TEST(Lines, HasTicksAndMarksWhereItWasMeasured) {
  LinesFigure f = sample();
  f.panels = {{"p", {{{4, 8, 16}, {3, 2, 1}, 0}, {{16}, {1}, 1}}, true}};
  EXPECT_THAT(to_svg(f), HasSubstr(">5<"));
  f.x_ticks = {4, 8, 16};
  const std::string svg = to_svg(f);
  for (const char* tick : {">4<", ">8<", ">16<"}) EXPECT_THAT(svg, HasSubstr(tick));
  for (const char* tick : {">5<", ">10<", ">20<"}) EXPECT_THAT(svg, Not(HasSubstr(tick)));
  EXPECT_EQ(marks(svg).size(), 2U + 4U);
}

}  // namespace
}  // namespace epsim
