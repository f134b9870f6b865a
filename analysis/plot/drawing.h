#pragma once
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <fmt/format.h>

namespace epsim {

inline constexpr std::string_view kInk = "#222222", kFaint = "#5c5c5c", kGrid = "#e3e3e3";
/// Attributes of a text that stays readable on what it crosses.
inline constexpr std::string_view kHalo = R"( paint-order="stroke" stroke="#ffffff" stroke-width="3" stroke-linejoin="round")";

/// Text as XML takes it.
std::string escape(std::string_view text);
/// Width of a text in pixels, near enough for a sans-serif font.
double width_of(std::string_view text, double size);
/// Breaks a text at spaces into lines of at most a width; a word that is wider by itself is cut.
std::vector<std::string> wrap(std::string_view text, double width, double size);
/// A round step of which about five reach `top`.
double tick_step(double top);

/// The body of an SVG document, element by element.
class Drawing {
 public:
  template <class... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(body_), format, std::forward<Args>(args)...);
    body_ += '\n';
  }
  void text(double x, double y, std::string_view anchor, double size, std::string_view colour, std::string_view content, std::string_view more = "");
  void upright(double x, double y, std::string_view anchor, double size, std::string_view colour, std::string_view content, std::string_view more = "");
  /// Title and subtitle in as many lines as the width takes; gives how much further down than with one line each the rest begins.
  double heading(double x, double width, std::string_view title, std::string_view subtitle);
  /// The whole document.
  std::string svg(double width, double height, std::string_view title) const;

 private:
  std::string body_;
};

}  // namespace epsim
