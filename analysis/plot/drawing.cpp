#include "analysis/plot/drawing.h"

#include <algorithm>
#include <cmath>

namespace epsim {

std::string escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default: out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return out;
}

double width_of(std::string_view text, double size) {
  return 0.56 * size * static_cast<double>(std::count_if(text.begin(), text.end(), [](unsigned char c) { return (c & 0xC0) != 0x80; }));
}

std::vector<std::string> wrap(std::string_view text, double width, double size) {
  std::vector<std::string> lines(1);
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(' ', begin), text.size());
    const std::string_view word = text.substr(begin, end - begin);
    if (!lines.back().empty() && width_of(lines.back(), size) + width_of(" ", size) + width_of(word, size) > width) lines.emplace_back();
    if (!lines.back().empty()) lines.back() += ' ';
    for (std::size_t at = 0; at < word.size();) {
      std::size_t next = at + 1;
      while (next < word.size() && (static_cast<unsigned char>(word[next]) & 0xC0) == 0x80) ++next;  // the bytes of a character stay together
      if (!lines.back().empty() && width_of(lines.back(), size) + width_of("x", size) > width) lines.emplace_back();
      lines.back() += word.substr(at, next - at);
      at = next;
    }
    begin = end + 1;
  }
  return lines;
}

double tick_step(double top) {
  const double raw = top / 5, power = std::pow(10, std::floor(std::log10(raw)));
  for (const double round : {1.0, 2.0, 2.5, 5.0})
    if (raw <= round * power * (1 + 1e-9)) return round * power;
  return 10 * power;
}

void Drawing::text(double x, double y, std::string_view anchor, double size, std::string_view colour, std::string_view content, std::string_view more) {
  add(R"(<text x="{:.1f}" y="{:.1f}" text-anchor="{}" font-size="{:g}" fill="{}"{}>{}</text>)", x, y, anchor, size, colour, more, escape(content));
}

void Drawing::upright(double x, double y, std::string_view anchor, double size, std::string_view colour, std::string_view content, std::string_view more) {
  text(x, y, anchor, size, colour, content, fmt::format(R"svg( transform="rotate(-90 {:.1f} {:.1f})"{})svg", x, y, more));
}

double Drawing::heading(double x, double width, std::string_view title, std::string_view subtitle) {
  constexpr double kTitleLine = 22, kSubtitleLine = 17;
  double y = 30;
  const auto lines = [&](std::string_view content, double size, double line, std::string_view colour, std::string_view more) {
    for (const std::string& part : wrap(content, width, size)) text(x, y, "start", size, colour, part, more), y += line;
    y -= line;
  };
  lines(title, 17, kTitleLine, kInk, R"( font-weight="600")");
  y += 20;
  lines(subtitle, 12.5, kSubtitleLine, kFaint, "");
  return y - 50;
}

std::string Drawing::svg(double width, double height, std::string_view title) const {
  return fmt::format(R"(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0:.0f} {1:.0f}" width="{0:.0f}" height="{1:.0f}" role="img" font-family="Helvetica, Arial, 'DejaVu Sans', sans-serif">
<title>{2}</title>
<rect width="100%" height="100%" fill="#ffffff"/>
{3}</svg>
)",
                     width, height, escape(title), body_);
}

}  // namespace epsim
