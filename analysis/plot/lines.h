#pragma once
#include <string>
#include <vector>

namespace epsim {

/// Curves over one horizontal axis, in panels one below another. A curve of a single point is a mark.
struct LinesFigure {
  struct Line {
    std::vector<double> x, y;  ///< of equal length; points whose y is NaN are left out
    int series = 0;            ///< whose colour it has
  };
  struct Panel {
    std::string axis_title;
    std::vector<Line> lines;
    bool from_zero = false;  ///< the vertical axis begins at 0; else a little below the lowest point
  };
  std::string title, subtitle, x_title;
  std::vector<std::string> series;  ///< names, for the legend
  std::vector<Panel> panels;
  std::vector<double> x_ticks;  ///< where measured: the axis has ticks there, and curves have marks at their points; empty: round ticks
};

/// The figure as an SVG document of its own: same figure, same bytes. Up to eight series have colours of their own (Okabe and Ito's palette), further ones take them again, dashed.
std::string to_svg(const LinesFigure& figure);

}  // namespace epsim
