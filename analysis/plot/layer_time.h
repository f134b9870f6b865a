#pragma once
#include <string>
#include <vector>

namespace epsim {

/// Stacked bars of time, split into dispatch, compute, combine and waiting for weights: groups of bars along the horizontal axis.
/// The time axis begins at 0; where the longest bar is more than 100 times the shortest it is logarithmic, and a bar is split in proportion.
struct LayerTimeFigure {
  struct Bar {
    std::string label;  ///< under the bar; may be empty
    double dispatch_s = 0, compute_s = 0, combine_s = 0;
    double lower_bound_s = 0;  ///< a tick across the bar; 0: none
    double drop_rate = 0;      ///< written above the bar when not 0
    double waited_s = 0;       ///< for weights that move
    double half_width_s = 0;   ///< of the interval that a whisker shows about the bar's end; 0: none

    double total_s() const { return dispatch_s + compute_s + combine_s + waited_s; }
  };
  struct Group {
    std::string label;
    std::vector<Bar> bars;
  };
  std::string title, subtitle;
  std::string axis_title;              ///< of the time axis, without its unit
  std::string group_title, bar_title;  ///< what groups and bars stand for; the second may be empty
  std::vector<Group> groups;
  std::string interval;  ///< what whiskers show
};

/// The figure as an SVG document of its own: same figure, same bytes. Colours are told apart by colour-blind readers (Okabe and Ito's palette).
std::string to_svg(const LayerTimeFigure& figure);

}  // namespace epsim
